"""kt.quantize with Keras's int8 and int4: below the head, with adapters, reloaded."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import _keras
from tests.adapters import models
from tests.contracts import fresh
from tests.contracts.compare import assert_close
from tests.contracts.compare import run

X = models.tokens()
Y = models.labels()


def quantized(mode, **settings):
    keras.utils.set_random_seed(0)
    model = models.nested(num_layers=1)
    return kt.quantize(model, mode, verbose=0, **settings)


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_the_layers_are_those_of_nf4(mode):
    model = quantized(mode)
    nf4 = quantized("nf4", block_size=8)
    places = [
        [x.name for x in _keras.flat_layers(each) if x.quantization_mode is not None]
        for each in (model, nf4)
    ]
    assert places[0] == places[1] and len(places[0]) == 9
    assert {x.quantization_mode for x in _keras.flat_layers(model)} == {None, mode}
    assert not [v.path for v in model.trainable_weights if "int" in v.dtype]


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_outputs_are_near_those_of_the_float_model(mode):
    keras.utils.set_random_seed(0)
    wanted = run(models.nested(num_layers=1), X)
    error = np.abs(run(quantized(mode), X) - wanted).max()
    assert 0 < error < 0.2 * np.abs(wanted).max()


def test_it_is_what_keras_computes():
    model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(16)])
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    kt.quantize(model, "int4", block_size=16, verbose=0)
    config = keras.quantizers.Int4QuantizationConfig(block_size=16)
    other.layers[0].quantize("int4", config=config)
    x = np.random.default_rng(0).normal(size=(4, 32)).astype("float32")
    assert_close(run(model, x), run(other, x))


def test_the_line_about_the_model(capsys):
    model = keras.Sequential([keras.Input((256,)), keras.layers.Dense(256)])
    kt.quantize(model, "int8")
    # A byte for each weight, and 4 bytes for each of 256 outputs.
    assert "int8 on 1 layers" in (said := capsys.readouterr().out)
    assert "8.125 bits a weight for 65,536 weights" in said


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_model_with_an_adapter_reloads_bit_for_bit(mode, tmp_path):
    model = quantized(mode)
    kt.adapters.LoRA(rank=2).attach(model, verbose=0)
    models.compiled(model, run_eagerly=True)
    model.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    again = fresh.load(tmp_path / "model.keras", X)
    np.testing.assert_array_equal(again.outputs, run(model, X))
    assert len(again.trainable) == len(model.trainable_weights)


def test_a_quantized_model_is_refused():
    with pytest.raises(ValueError, match="already quantized"):
        kt.quantize(quantized("int8"), "int4")
    with pytest.raises(ValueError, match="already quantized"):
        kt.quantize(quantized("nf4", block_size=8), "int8")
