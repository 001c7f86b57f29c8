"""NormTuning: the contract of recipes, one step by hand, batch statistics."""

import keras
import numpy as np
import pytest

from keras_transfer import adapters
from tests import tiny
from tests.adapters import models
from tests.backbones import families
from tests.contracts.adapter_contract import AdapterContract
from tests.contracts.adapter_contract import small
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit


class TestNormTuning(AdapterContract):
    learns = {"gamma", "beta"}
    parameters = 3 * (16 + 16)  # of the embeddings, attention, feed-forward network
    own = True
    test_xla_trains_the_same = None  # it computes nothing
    test_mixed_bfloat16 = None

    def recipe(self, **kwargs):
        return adapters.NormTuning(**kwargs)


def test_one_step_by_hand():
    x, y = np.array([[1.0, 2.0, 6.0]]), np.array([[1.0, 0.0, 2.0]])
    norm = keras.layers.LayerNormalization(epsilon=0.0)
    model = keras.Sequential([keras.Input((3,)), norm])
    adapters.NormTuning().attach(model)
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    fit(model, x, y)
    normal = (x - x.mean()) / x.std()
    slope = 2 * (normal - y) / 3
    gamma, beta = (array(v) for v in norm.weights)
    np.testing.assert_allclose(gamma, (1 - 0.1 * slope * normal)[0], atol=1e-5)
    np.testing.assert_allclose(beta, (-0.1 * slope)[0], atol=1e-5)


def test_batch_statistics_follow_the_data_and_are_saved(tmp_path):
    model = tiny.convnet()
    adapters.NormTuning().attach(model)
    norm = model.get_layer("norm")
    base = {v.path: array(v) for v in model.weights}
    x = np.random.default_rng(0).normal(2, 3, size=(8, 8, 8, 3))
    models.compiled(model).run_eagerly = True
    fit(model, x, models.labels())
    head = {v.path for v in model.get_layer("logits").weights}
    moved = {v.path for v in model.weights if (array(v) != base[v.path]).any()}
    assert moved - head == {v.path for v in norm.weights}
    recipe = adapters.attached(model)["default"]
    kept = recipe.trained(model, recipe.find(model))
    assert [v.name for v in kept] == ["gamma", "beta", "moving_mean", "moving_variance"]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(again(x), model(x))
    before = array(again.get_layer("norm").moving_mean)
    again.run_eagerly = True
    fit(again, x, models.labels())
    assert (array(again.get_layer("norm").moving_mean) != before).any()


def test_a_choice_of_layers():
    model = small()
    adapters.NormTuning(targets="self_attention_layer_norm$").attach(model)
    learning = [v for v in model.trainable_variables if "logits" not in v.path]
    assert [v.shape for v in learning] == [(16,), (16,)]


def test_normalizations_of_keras_hub_and_group_normalization():
    model = families.build("llama")
    adapters.NormTuning().attach(model)
    assert {v.name for v in model.trainable_variables} == {"scale"}
    layers = [
        keras.Input((4, 4, 6)),
        keras.layers.Normalization(mean=0.0, variance=1.0),  # has no trainable weights
        keras.layers.SpectralNormalization(keras.layers.Conv2D(6, 3)),
        keras.layers.GroupNormalization(2),
        keras.layers.RMSNormalization(),
        keras.layers.UnitNormalization(),
    ]
    model = keras.Sequential(layers)
    adapters.NormTuning().attach(model)
    names = [v.path.split("/")[-2:] for v in model.trainable_variables]
    assert names == [
        ["group_normalization", "gamma"],
        ["group_normalization", "beta"],
        ["rms_normalization", "scale"],
    ]


@pytest.mark.parametrize("away", [adapters.merge, adapters.detach])
def test_the_plain_model_keeps_the_trained_weights(away):
    model = small()
    classes = models.classes(model)
    adapters.NormTuning().attach(model)
    for variable in model.trainable_variables:
        variable.assign(variable + 0.1)
    y = model(models.tokens())
    away(model)
    assert models.classes(model) == classes
    assert_close(model(models.tokens()), y)


def test_a_model_without_normalizations_raises():
    with pytest.raises(ValueError, match="no normalization with a scale"):
        adapters.NormTuning().attach(tiny.mlp())
