"""Merge to plain Keras layers, unmerge bit for bit, and detach."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_transfer import _keras
from keras_transfer import adapters
from keras_transfer.adapters.in_place.layer_state import first_state
from keras_transfer.adapters.in_place.layer_state import own_recipes
from keras_transfer.adapters.switching import places
from tests import tiny
from tests.adapters import models
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compare import run

X, Y = models.tokens(), models.labels()
STRANGER = """
import sys
import numpy as np
import keras
import keras_hub
model = keras.models.load_model(sys.argv[1])
assert "keras_transfer" not in sys.modules
x = dict(np.load(sys.argv[2]))
np.save(sys.argv[3], model.predict(x, verbose=0))
"""


def state(model):
    """Return everything that attach and merge can change."""
    return (
        models.classes(model),
        _keras.flags(model),
        [v.trainable for v in model.weights],
        [id(v) for v in model.weights],
    )


def attached(make=models.nested, **kwargs):
    """Return a model with pairs that change its outputs."""
    model = make()
    adapters.LoRA(**{"rank": 2, "targets": "all-linear"} | kwargs).attach(model)
    return models.disturb(model)


@pytest.mark.slow
@pytest.mark.parametrize("make", [models.nested, models.flat, models.task])
def test_merged_equals_unmerged(make):
    model = make()
    before = state(model)
    adapters.LoRA(rank=2, targets="all-linear").attach(model)
    models.disturb(model)
    y, traced = run(model, X), model.predict(X, verbose=0)
    assert adapters.merge(model) is model
    assert_close(run(model, X), y, 1e-5)
    assert_close(model.predict(X, verbose=0), traced, 1e-5)
    assert state(model) == before


@pytest.mark.slow
@pytest.mark.parametrize("make", [models.nested, models.task])
def test_unmerge_restores_everything_bit_for_bit(make):
    model = attached(make)
    before, weights = state(model), model.get_weights()
    y = run(model, X)
    adapters.merge(model)
    adapters.unmerge(model)
    assert state(model) == before
    assert all(map(np.array_equal, model.get_weights(), weights))
    assert np.array_equal(run(model, X), y)
    assert list(adapters.attached(model)) == ["default"]


@pytest.mark.slow
def test_convolutions_and_embeddings_merge():
    model = tiny.hub_resnet()
    adapters.LoRA(rank=2).attach(model)
    models.disturb(model, 0.05)
    y = run(model, models.images())
    adapters.merge(model)
    assert_close(run(model, models.images()), y, 1e-4)
    model = attached(targets="token_embedding")
    y = run(model, X)
    adapters.merge(model)
    assert_close(run(model, X), y, 1e-5)


@pytest.mark.slow
def test_only_the_adapter_in_use_is_merged():
    model = attached()
    adapters.LoRA(rank=3).attach(model, "second")
    models.disturb(model, name="second")
    adapters.use(model, "default")
    y = run(model, X)
    adapters.merge(model)
    assert_close(run(model, X), y, 1e-5)
    adapters.unmerge(model)
    assert list(adapters.attached(model)) == ["default", "second"]
    assert adapters.active(model) == {"default": 1.0}


def test_a_merged_file_loads_without_keras_transfer(tmp_path):
    model = models.compiled(attached(), run_eagerly=True)
    fit(model, X, Y)
    adapters.merge(model)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "x.npz", **X)
    names = [tmp_path / name for name in ("model.keras", "x.npz", "y.npy")]
    command = [sys.executable, "-c", STRANGER, *map(str, names)]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    assert_close(np.load(tmp_path / "y.npy"), model.predict(X, verbose=0), 1e-6)


@pytest.mark.slow
def test_a_compiled_model_trains_after_merge_and_after_unmerge():
    model = models.compiled(attached())
    fit(model, X, Y)
    slots = arrays(model.optimizer.variables)
    adapters.merge(model)
    assert len(model.trainable_variables) == len(model.weights)
    adapters.unmerge(model)
    assert_close(model.optimizer.variables, slots)
    fit(model, X, Y)
    adapters.merge(model)
    fit(model, X, Y)
    with pytest.raises(ValueError, match="changed since"):
        adapters.unmerge(model)


@pytest.mark.slow
def test_unmerge_after_a_reload_raises(tmp_path):
    model = attached()
    adapters.merge(model)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="reloaded"):
        adapters.unmerge(again)


@pytest.mark.slow
def test_unmerge_with_a_newer_adapter_raises():
    model = attached()
    adapters.merge(model)
    adapters.LoRA(rank=2).attach(model, "newer")
    with pytest.raises(ValueError, match="newer"):
        adapters.unmerge(model)


@pytest.mark.slow
def test_detach_restores_the_base_model():
    model = models.nested()
    before, y = state(model), run(model, X)
    weights = model.get_weights()
    adapters.LoRA(rank=2).attach(model)
    models.disturb(model)
    assert adapters.detach(model) is model
    assert state(model) == before
    assert all(map(np.array_equal, model.get_weights(), weights))
    assert np.array_equal(run(model, X), y)
    for call in (adapters.detach, adapters.merge):
        with pytest.raises(ValueError, match="no adapters"):
            call(model)


class ScaledHead(keras.layers.Layer):
    """A head with its own weight and a sublayer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(3, name="hidden")

    def build(self, shape):
        self.scale = self.add_weight(shape=(3,), initializer="ones", name="scale")
        self.hidden.build(shape)

    def call(self, inputs):
        return self.hidden(inputs) * self.scale


@pytest.mark.parametrize("leave", [adapters.detach, adapters.merge])
def test_no_layer_keeps_a_recipe(leave):
    backbone = tiny.bert(num_layers=1, dropout=0.0, name="backbone")
    head = ScaledHead(name="head")
    outputs = head(backbone(backbone.input)["pooled_output"])
    model = keras.Model(backbone.input, outputs)
    # When the model's own biases train, the head trains in place and is not frozen.
    adapters.LoRA(rank=2, targets="query|hidden", bias="lora_only").attach(model)
    assert own_recipes(head) and first_state(head) is None
    leave(model)
    layers = _keras.flat_layers(model)
    assert [each.name for each in layers if own_recipes(each)] == []


def test_detach_restores_the_trainable_flags():
    model = models.nested()
    model.layers[-2].get_layer("token_embedding").trainable = False
    before = state(model)
    adapters.LoRA(rank=2).attach(model)
    adapters.detach(model)
    assert state(model) == before


@pytest.mark.slow
def test_merging_an_inner_backbone(tmp_path):
    model = attached()
    backbone = next(x for x in model.layers if x.name == "backbone")
    y = run(model, X)
    adapters.merge(backbone)
    assert_close(run(model, X), y, 1e-5)
    # The adapter's own head is not in the backbone.
    assert list(adapters.attached(model)) == ["default"]
    adapters.merge(model)
    assert_close(run(model, X), y, 1e-5)
    assert adapters.attached(model) == {}
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(run(again, X), run(model, X))


@pytest.mark.filterwarnings("ignore:.*does not have a `quantize` method:UserWarning")
def test_a_failing_merge_changes_nothing():
    layer = keras.layers.Dense(16, name="hidden")
    model = keras.Sequential([keras.Input((16,)), layer])
    model.quantize("int8")
    adapters.LoRA(rank=2, targets="hidden").attach(model)
    models.disturb(model)
    x = np.random.default_rng(0).normal(size=(4, 16)).astype("float32")
    y, before = run(model, x), state(model)
    with pytest.raises(ValueError, match="quantized"):
        adapters.merge(model)
    assert state(model) == before
    assert_close(run(model, x), y)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*does not have a `quantize` method:UserWarning")
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_quantized_base_reloads_with_the_trained_adapter(mode, tmp_path):
    model = models.nested()
    model.quantize(mode)
    adapters.LoRA(rank=2).attach(model)
    models.disturb(model)
    assert all(part.lora_a.dtype == "float32" for _, _, part in places(model))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(run(again, X), run(model, X))
