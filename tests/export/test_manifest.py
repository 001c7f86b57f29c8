"""A manifest describes layers from which adapter files are read without the model."""

import json

import keras
import pytest

import keras_transfer as kt
from keras_transfer.adapters.adapter_part import parts_of
from keras_transfer.adapters.low_rank import DensePair
from keras_transfer.export.manifest import FILE
from keras_transfer.export.manifest import host_config
from keras_transfer.export.manifest import Manifest
from keras_transfer.export.manifest import OwnPlace
from keras_transfer.export.manifest import PairPlace
from keras_transfer.export.manifest import read_manifest
from keras_transfer.saving.base_model import Fingerprint
from tests.export.test_many_adapters import around
from tests.export.test_many_adapters import einsum

LAYERS = {
    "dense": (keras.layers.Dense, (4,), (2, 6)),
    "einsum, two axes in": (einsum, ("abcd,cde->abe", (None, 4)), (5, 2, 3)),
    "einsum, ellipsis": (einsum, ("...x,xy->...y", 4), (5, 6)),
    "conv": (keras.layers.Conv2D, (4, (5, 2), (1, 2), "same"), (7, 8, 3)),
    "embedding": (keras.layers.Embedding, (20, 6), (5,)),
    "tied embedding": (keras.layers.ReversibleEmbedding, (20, 6), (5,)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_described_layer_has_pairs_of_the_same_shapes(name):
    make, arguments, shape = LAYERS[name]
    layer = make(*arguments, **({} if make is einsum else {"name": "hidden"}))
    model = around(layer, shape)
    kt.adapters.LoRA(rank=2, targets="hidden").attach(model, verbose=0)
    (part,) = (each for each in parts_of(layer) if not each.replaces)
    host = json.loads(json.dumps(host_config(layer)))
    other = PairPlace("hidden", "pair_0_", host).layer()
    wanted = {k: tuple(v.shape) for k, v in part.named_weights.items()}
    assert {k: shape for k, (shape, _) in part.weight_specs(other).items()} == wanted


def test_a_described_layer_has_no_weights():
    sizes = {"arguments": {"units": 10**6}, "axes": {"-1": 10**6}}
    host = {"kind": "Dense", "ndim": None, "kernel": [], **sizes}
    layer = PairPlace("hidden", "pair_0_", host).layer()
    assert layer.weights == []  # the kernel would need 4 TB
    assert DensePair(2, 1.0).weight_specs(layer)["lora_a"][0] == (10**6, 2)


def test_what_is_written_is_read(tmp_path):
    base = Fingerprint("Bert", 3, "a", "b")
    pairs = [PairPlace("x/query", "pair_0_", {"kind": "Dense"})]
    own = [OwnPlace({"head:logits/kernel": "own_0_weight_0"}, "own_0_", 2, 3)]
    manifest = Manifest(base, pairs, own)
    manifest.write(tmp_path)
    assert read_manifest(tmp_path) == manifest
    said = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(said | {"base": {"name": "Bert"}}))
    with pytest.raises(ValueError, match="cannot be used"):
        read_manifest(tmp_path)
