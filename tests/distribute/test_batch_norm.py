"""BatchNormalization on two replicas: separate or synchronized statistics."""

import contextlib

import keras
import numpy as np
import pytest
from keras import layers

from keras_transfer.distribute import synchronize_batch_norm
from tests import tiny


def images():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 8, 8, 3)).astype("float32")
    x[4:] = 3 * x[4:] + 1  # the second replica gets other images
    return x, np.arange(8) % 3


def trained(scope, change):
    keras.utils.set_random_seed(0)
    with scope:
        model = tiny.convnet()
        change(model)
        model.get_layer("norm").momentum = 0.9
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        eager = isinstance(scope, contextlib.nullcontext)  # saves a trace
        model.compile(keras.optimizers.SGD(0.01), loss, run_eagerly=eager)
    model.fit(*images(), batch_size=8, epochs=3, shuffle=False, verbose=0)
    return model


def distance(one, two):
    pairs = zip(one, two.get_weights(), strict=True)
    return max(np.abs(a - b).max() for a, b in pairs)


@pytest.fixture(scope="module")
def one():
    """Return the weights of one device, with Keras's default BatchNormalization."""
    return trained(contextlib.nullcontext(), lambda model: None).get_weights()


@pytest.mark.slow
def test_by_default_each_replica_has_its_own_statistics(strategy, one):
    model = trained(strategy.scope(), lambda model: None)
    assert distance(one, model) > 1e-2
    mean = model.get_layer("norm").moving_mean.value.values
    assert np.abs(mean[0] - mean[1]).max() > 1e-2
    # Keras saves the statistics of the first replica.
    np.testing.assert_array_equal(model.get_layer("norm").get_weights()[2], mean[0])


@pytest.mark.slow
def test_synchronized_two_replicas_equal_one(strategy, one):
    model = trained(strategy.scope(), synchronize_batch_norm)
    assert distance(one, model) < 1e-6
    mean = model.get_layer("norm").moving_mean.value.values
    np.testing.assert_array_equal(mean[0], mean[1])


@pytest.mark.slow
def test_frozen_two_replicas_equal_one(strategy):
    def freeze(model):
        model.get_layer("norm").trainable = False

    alone = trained(contextlib.nullcontext(), freeze).get_weights()
    assert distance(alone, trained(strategy.scope(), freeze)) < 1e-6


def test_nested_layers_are_synchronized_and_saved_with_their_config(tmp_path):
    def switched(model):
        kind = layers.BatchNormalization
        found = [x for x in model._flatten_layers() if isinstance(x, kind)]
        return {each.synchronized for each in found}

    inner = tiny.convnet()
    hub = tiny.hub_resnet()
    for backbone, kept in ((inner, {True}), (hub, {False})):
        model = keras.Sequential([keras.Input(backbone.input_shape[1:]), backbone])
        assert synchronize_batch_norm(model) is model
        assert switched(model) == {True}
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert switched(again) == kept  # a keras-hub backbone rebuilds its layers


@pytest.mark.slow
def test_a_fitted_model_is_synchronized(strategy):
    x, y = images()
    with strategy.scope():
        model = tiny.convnet()
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    start = model.get_weights()
    synchronize_batch_norm(model)
    model.set_weights(start)  # on both replicas
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    mean = model.get_layer("norm").moving_mean.value.values
    np.testing.assert_array_equal(mean[0], mean[1])


def test_a_model_without_batch_norm_raises():
    with pytest.raises(ValueError, match="has no BatchNormalization"):
        synchronize_batch_norm(tiny.mlp())


def test_a_mask_raises():
    inputs = keras.Input((3,), dtype="int32")
    x = layers.Embedding(5, 4, mask_zero=True)(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    model = keras.Model(inputs, x)
    with pytest.raises(ValueError, match=r"\['norm'\] get a mask"):
        synchronize_batch_norm(model)
    assert not model.get_layer("norm").synchronized
