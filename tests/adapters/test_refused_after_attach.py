"""Methods that would change adapted weights raise, and name the right order."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import adapters
from tests.adapters import models
from tests.contracts.compare import assert_close
from tests.contracts.compare import run

X = np.random.default_rng(0).random((4, 8)).astype("float32")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have a `quantize` method:UserWarning"
)


def classifier():
    """Return a TransferClassifier on two layers."""
    hidden = [keras.layers.Dense(8, name=f"block_{i}") for i in range(2)]
    body = keras.Sequential([keras.Input((8,)), *hidden], name="body")
    return kt.models.TransferClassifier(body, num_classes=2)


REFUSED = {
    "quantize": lambda model: model.quantize("int8"),
    "quantize a layer": lambda model: model.backbone.layers[0].quantize("int8"),
    "enable_lora": lambda model: model.backbone.enable_lora(2),
    "enable_lora of a layer": lambda model: model.backbone.layers[0].enable_lora(2),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_raises_and_changes_nothing(what):
    model = classifier()
    adapters.LoRA(rank=2, targets="all-linear").attach(model)
    before = models.classes(model), model.get_weights()
    order = "Quantize first, then attach" if "quantize" in what else "kt.adapters.LoRA"
    with pytest.raises(ValueError, match=rf"\['default'\].*{order}"):
        REFUSED[what](model)
    assert models.classes(model) == before[0]
    assert_close(model.get_weights(), before[1])


def test_it_is_allowed_after_detach():
    model = classifier()
    adapters.LoRA(rank=2, targets="all-linear").attach(model)
    adapters.detach(model)
    model.backbone.layers[0].enable_lora(2)
    model.backbone.layers[1].quantize("int8")
    assert model.backbone.layers[1].quantization_mode == "int8"


def test_an_adapter_on_a_quantized_model_reloads(tmp_path):
    model = classifier()
    model.quantize("int8")
    adapters.LoRA(rank=2, targets="all-linear").attach(model)
    models.disturb(model)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(run(again, X), run(model, X))


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_quantized_classifier_reloads(mode, tmp_path):
    model = classifier()
    model.quantize(mode)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(run(again, X), run(model, X))
    modes = [layer.quantization_mode for layer in model._flatten_layers()]
    assert [layer.quantization_mode for layer in again._flatten_layers()] == modes
