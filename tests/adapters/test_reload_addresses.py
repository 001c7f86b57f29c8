"""Models whose layers and weights have automatic names reload with adapters."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import adapters
from tests.adapters import models
from tests.contracts import fresh
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compare import run

ROWS = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")


@keras.saving.register_keras_serializable("keras_transfer_tests")
class Unnamed(keras.Model):
    """A subclassed model whose layers get automatic names, numbered per process."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = keras.layers.Dense(6)
        self.second = keras.layers.Dense(6)
        self.third = keras.layers.Dense(6, name=f"{self.name}_third")

    def call(self, inputs):
        return self.third(self.second(self.first(inputs)))


@keras.saving.register_keras_serializable("keras_transfer_tests")
class PlainNorm(keras.layers.Layer):
    """A layer with weights that have no names."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")
        self.shift = self.add_weight(shape=(shape[-1],), initializer="zeros")

    def call(self, inputs):
        return inputs * self.scale + self.shift


def unnamed():
    """Return a built `Unnamed` model that is not the first in this process."""
    keras.layers.Dense(3)
    Unnamed()
    model = Unnamed(name=None)
    model(ROWS)
    return model


def scaled():
    """Return a model whose weights get automatic names, numbered per process."""
    PlainNorm().build((None, 3))
    inputs = keras.Input((6,))
    return keras.Model(inputs, keras.layers.Dense(2)(PlainNorm()(inputs)))


def vision_transformer():
    """Return keras-hub's mixed transformer, whose blocks have layers without names."""
    import keras_hub

    settings = dict(
        image_shape=(16, 16, 3),
        num_layers=2,
        hidden_dims=[4, 8],
        layerwise_depths=[1, 1],
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1],
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        max_drop_path_rate=0.1,
    )
    keras_hub.models.MiTBackbone(**settings)
    return keras_hub.models.MiTBackbone(**settings)


def adapted(make):
    """Return a model with an adapter that changes its outputs."""
    model = make()
    adapters.LoRA(rank=2, targets="all-linear").attach(model)
    return models.disturb(model)


CASES = {
    "subclassed": (unnamed, ROWS),
    "hub": (vision_transformer, models.images(2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_it_loads_after_other_layers_were_created(name, tmp_path):
    make, inputs = CASES[name]
    model = adapted(make)
    model.save(tmp_path / "model.keras")
    keras.layers.Dense(3)
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(run(again, inputs), run(model, inputs))
    shapes = [v.shape for v in model.trainable_variables]
    assert [v.shape for v in again.trainable_variables] == shapes


def test_it_loads_in_a_new_process(tmp_path):
    model, inputs = adapted(vision_transformer), models.images(2)
    model.save(tmp_path / "model.keras")
    assert_close(
        fresh.load(tmp_path / "model.keras", inputs).outputs, run(model, inputs)
    )


def test_a_pair_loads_on_its_layer_and_not_on_a_layer_of_that_name(tmp_path):
    model = Unnamed()
    model(ROWS)
    assert model.second.name == "dense_1"
    adapters.LoRA(rank=2, targets="dense_1$").attach(model)
    models.disturb(model)
    model.save(tmp_path / "model.keras")
    keras.utils.clear_session(free_memory=False)
    keras.layers.Dense(3)
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.first.name == "dense_1"
    assert isinstance(again.second, adapters.LoRADense)
    assert not isinstance(again.first, adapters.LoRADense)
    assert_close(run(again, ROWS), run(model, ROWS))


def test_weights_without_names_are_trainable_after_loading(tmp_path):
    model = scaled()
    adapters.NormTuning().attach(model)
    learning = [v.shape for v in model.trainable_variables]
    assert len(learning) == 2
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert [v.shape for v in again.trainable_variables] == learning


def test_resume_restores_rates_of_weights_without_names(tmp_path):
    model = scaled()
    optimizer = keras.optimizers.Adam(0.01)
    optimizer = kt.optimizers.discriminative(optimizer, model, layer_decay=0.5)
    model.compile(optimizer, "mse", jit_compile=False)
    fit(model, ROWS, ROWS[:, :2])
    model.save(tmp_path / "model.keras")
    scaled()
    again = kt.resume(tmp_path / "model.keras")
    assert_close(again.optimizer.variables, model.optimizer.variables)


def test_detach_restores_a_frozen_weight_without_a_name(tmp_path):
    model = scaled()
    adapters.LoRA(rank=1, targets=[model.layers[-1]]).attach(model)
    model.save(tmp_path / "model.keras")
    scaled()
    again = keras.models.load_model(tmp_path / "model.keras")
    assert len(again.trainable_variables) == len(model.trainable_variables)
    adapters.detach(again)
    assert len(again.trainable_variables) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_an_adapter_file_loads_into_another_build(name, tmp_path):
    make, inputs = CASES[name]
    model, other = make(), make()
    other.set_weights(model.get_weights())
    adapters.LoRA(rank=2, targets="all-linear").attach(model)
    models.disturb(model)
    kt.save_adapter(model, tmp_path / "adapter.safetensors")
    kt.load_adapter(other, tmp_path / "adapter.safetensors")
    assert_close(run(other, inputs), run(model, inputs))
