"""PEFT's folders and a base model in NF4."""

import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import adapters
from keras_transfer.backbones.layer_paths import located
from keras_transfer.quantization.packed_layers import PackedLayer
from keras_transfer.saving.peft import files
from tests.contracts.compare import assert_close
from tests.saving import peft_models


def packed(family="bert"):
    return kt.quantize(peft_models.backbone(family), "nf4", block_size=4, verbose=0)


def decoded(model, family="bert"):
    """Return the float model with the decoded weights of a packed model."""
    other = peft_models.backbone(family)
    layers = located(other)
    for path, layer in located(model).items():
        if isinstance(layer, PackedLayer):
            weight = getattr(layers[path], layer.packed_weight)
            weight.assign(layer.unpacked())
    return other


@pytest.mark.parametrize("case", ["query_value", "ia3"])
def test_an_adapter_on_a_packed_base_equals_it_on_the_decoded_base(case, tmp_path):
    folder = peft_models.GOLDEN / "bert" / case
    model = packed()
    with pytest.raises(ValueError, match="quantized .nf4.*check_base=False"):
        kt.load_adapter(model, folder)
    assert adapters.attached(model) == {}
    base = peft_models.outputs_of(model, "bert")
    kt.load_adapter(model, folder, check_base=False, verbose=0)
    wanted = decoded(model)
    kt.load_adapter(wanted, folder, verbose=0)
    outputs = peft_models.outputs_of(model, "bert")
    assert_close(outputs, peft_models.outputs_of(wanted, "bert"), 1e-5)
    assert np.abs(outputs - base).max() > 0.1
    kt.save_adapter(model, tmp_path, format="peft", verbose=0)
    for each in (files.CONFIG, files.WEIGHTS):
        assert (tmp_path / each).read_bytes() == (folder / each).read_bytes()


def test_an_adapter_that_was_trained_on_a_packed_base_can_be_saved(tmp_path, capsys):
    model = packed()
    adapters.LoRA(rank=2, targets="all-linear").attach(model)
    for variable in model.trainable_variables:
        variable.assign(variable + 0.1)
    kt.save_adapter(model, tmp_path, format="peft")
    assert "the base here is quantized (nf4)" in capsys.readouterr().out
    again = decoded(model)
    kt.load_adapter(again, tmp_path, verbose=0)
    outputs = peft_models.outputs_of(model, "bert")
    assert_close(peft_models.outputs_of(again, "bert"), outputs, 1e-5)


def test_whole_weights_of_packed_layers_are_refused():
    model = packed()
    folder = peft_models.GOLDEN / "bert" / "words_to_save"
    with pytest.raises(ValueError, match="cannot train in full"):
        kt.load_adapter(model, folder, check_base=False)
    assert adapters.attached(model) == {}
