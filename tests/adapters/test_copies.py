"""A model with adapters can be copied in all ways of Keras, except to HDF5."""

import copy
import pickle

import keras
import numpy as np
import pytest

from keras_transfer import adapters
from tests.adapters import models
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compare import run
from tests.contracts.compute import wide

ROWS = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")


@keras.saving.register_keras_serializable("keras_transfer_tests")
class Pair(keras.Model):
    """A subclassed model of two layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = keras.layers.Dense(6), keras.layers.Dense(3)

    def call(self, inputs):
        return self.second(self.first(inputs))


def subclassed():
    model = Pair()
    model(ROWS)
    return model


def sequential():
    layers = [keras.layers.Dense(6), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((6,)), *layers])


def functional():
    inputs = keras.Input((6,))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dense(6)(inputs)))


def around(inner):
    """Return a functional model around `inner`, with a head."""
    inputs = keras.Input((6,))
    return keras.Model(inputs, keras.layers.Dense(2)(inner(inputs)))


def adapted(make, outer=False):
    """Return a trained model with an adapter. With `outer` it is in an inner model."""
    inner = make()
    model = around(inner) if outer else inner
    adapters.LoRA(rank=2, targets="all-linear").attach(inner)
    models.disturb(inner)
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    fit(model, ROWS, np.ones((4, 2 if outer else 3)))
    return model


MODELS = {
    "sequential": lambda: adapted(sequential),
    "functional": lambda: adapted(functional),
    "subclassed": lambda: adapted(subclassed),
    "inside": lambda: adapted(sequential, outer=True),
}
COPIES = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "deepcopy": copy.deepcopy,
}
REMADE = {
    "clone_model": keras.models.clone_model,
    "to_json": lambda model: keras.models.model_from_json(model.to_json()),
    "from_config": lambda model: type(model).from_config(model.get_config()),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]()


def assert_same(again, model):
    assert again is not model
    assert_close(run(again, ROWS), run(model, ROWS))
    shapes = [variable.shape for variable in model.trainable_variables]
    assert [variable.shape for variable in again.trainable_variables] == shapes


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_has_the_same_outputs_and_optimizer(model, way):
    again = COPIES[way](model)
    assert_same(again, model)
    assert_close(again.optimizer.variables, model.optimizer.variables)


@pytest.mark.parametrize("way", REMADE)
def test_a_model_made_from_the_config_accepts_the_weights(model, way):
    again = REMADE[way](model)
    again.set_weights(model.get_weights())
    assert_same(again, model)


@pytest.mark.parametrize("suffix", ["h5", "hdf5"])
def test_saving_a_legacy_file_raises(model, suffix, tmp_path):
    with pytest.raises(ValueError, match="legacy HDF5 .* model.save.'name.keras'"):
        model.save(tmp_path / f"model.{suffix}")


RECIPES = [
    adapters.LoRA(rank=2, targets="all-linear"),
    adapters.DoRA(rank=2, targets="all-linear"),
    adapters.LoHa(rank=1, targets="all-linear"),
    adapters.VeRA(rank=2, targets="all-linear"),
    adapters.IA3(targets="dense", feedforward=[]),
    adapters.BitFit(),
]


@wide
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda x: type(x).__name__)
def test_a_float64_model_keeps_its_dtype(recipe, tmp_path):
    keras.config.set_dtype_policy("float64")
    model, rows = sequential(), ROWS.astype("float64")
    before = run(model, rows)
    recipe.attach(model)
    assert_close(run(model, rows), before, 1e-6)
    models.disturb(model)
    after = run(model, rows)
    assert after.dtype == "float64"
    model.save(tmp_path / "model.keras")
    assert_close(run(keras.models.load_model(tmp_path / "model.keras"), rows), after)
    adapters.merge(model)
    assert {variable.dtype for variable in model.weights} == {"float64"}
    assert_close(run(model, rows), after, 1e-6)  # the adapter's weights are float32
