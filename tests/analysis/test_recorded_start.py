"""record_start copies weights, and does not keep a model alive."""

import gc
import weakref

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import _keras
from keras_transfer.analysis.recorded_start import record_start
from keras_transfer.analysis.recorded_start import start_of
from tests import tiny


def test_the_record_is_a_copy():
    model = tiny.mlp()
    assert start_of(model) is None
    record_start(model)
    kernel = model.layers[1].kernel
    before = _keras.value(kernel).copy()
    kernel.assign(kernel * 2)
    assert np.array_equal(start_of(model).get(kernel), before)
    assert all(start_of(model).get(each) is not None for each in model.weights)


def test_only_again_replaces_a_record():
    model = tiny.mlp()
    kernel = model.layers[1].kernel
    record_start(model)
    first = start_of(model).get(kernel)
    kernel.assign(kernel + 1)
    record_start(model)
    assert np.array_equal(start_of(model).get(kernel), first)
    record_start(model, again=True)
    assert np.array_equal(start_of(model).get(kernel), _keras.value(kernel))


def test_a_second_call_records_new_weights():
    model = tiny.mlp()
    record_start(model)
    layer = model.layers[1]
    kernel = _keras.value(layer.kernel)
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(layer.lora_kernel_b + 1)
    assert start_of(model).get(layer.lora_kernel_b) is None
    record_start(model)
    assert start_of(model).get(layer.lora_kernel_b).min() == 1
    assert np.array_equal(start_of(model).get(model.weights[0]), kernel)


def test_the_record_is_found_from_a_larger_model_and_from_a_part():
    inner = tiny.mlp()
    record_start(inner)
    outer = keras.Sequential([keras.Input((6,)), inner, keras.layers.Dense(2)])
    part = keras.Model(inner.inputs, inner.layers[1].output)
    for model in (outer, part):
        assert start_of(model).name == inner.name
        assert start_of(model).get(inner.layers[1].kernel) is not None
    assert start_of(outer).get(outer.layers[-1].kernel) is None
    record_start(outer)
    assert start_of(outer).get(outer.layers[-1].kernel) is not None
    assert start_of(tiny.mlp()) is None


def test_a_record_is_deleted_with_its_model():
    model = tiny.mlp()
    record_start(model)
    alive = weakref.ref(model), weakref.ref(model.weights[0])
    array = weakref.ref(start_of(model).get(model.weights[0]))
    del model
    gc.collect()
    assert [each() for each in alive] == [None, None]
    assert array() is None


def test_a_record_is_not_part_of_the_model(tmp_path):
    model = tiny.mlp()
    attributes = set(vars(model))
    record_start(model)
    assert set(vars(model)) == attributes
    model.save(tmp_path / "model.keras")
    assert start_of(keras.models.load_model(tmp_path / "model.keras")) is None


def test_a_model_on_two_replicas(strategy):
    with strategy.scope():
        model = tiny.convnet()
    record_start(model)
    kernel = model.get_layer("conv").kernel
    before = _keras.value(kernel)
    kernel.assign(kernel + 1)
    assert np.array_equal(start_of(model).get(kernel), before)


@pytest.mark.slow
def test_gradual_unfreezing_records_the_start():
    model = tiny.mlp()
    model.compile("adam", "mse", jit_compile=False)
    before = model.get_weights()
    x, y = np.ones((8, 6)), np.ones((8, 3))
    unfreezing = kt.callbacks.GradualUnfreezing(model)
    model.fit(x, y, epochs=3, callbacks=[unfreezing], verbose=0)
    for weight, array in zip(model.weights, before, strict=True):
        assert np.array_equal(start_of(model).get(weight), array)
        assert not np.array_equal(_keras.value(weight), array)


def test_strings_and_unbuilt_models_raise():
    with pytest.raises(TypeError, match="not str"):
        record_start("model")
    with pytest.raises(ValueError, match="not built"):
        record_start(keras.Sequential([keras.layers.Dense(1)]))
