"""AdaBN: the statistics of the target, compared with NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_transfer.backbones import FrozenBackbone
from keras_transfer.models import AdaBN
from keras_transfer.models import adapt_batch_norm
from tests.contracts.compare import array
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compare import run
from tests.contracts.domain_contract import DomainContract
from tests.contracts.domain_contract import extractor
from tests.contracts.domain_contract import free_head
from tests.contracts.domain_contract import LABELS
from tests.contracts.domain_contract import LOGITS
from tests.contracts.domain_contract import streams

TARGET = streams(11)["target"]


def body():
    """Return a model of BatchNorm, Dense, Dropout and BatchNorm."""
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.BatchNormalization(name="first"),
            layers.Dense(5),
            layers.Dropout(0.5, seed=1),
            layers.BatchNormalization(name="second"),
        ]
    )


class TestAdaBN(DomainContract):
    kind = AdaBN
    replicas = "BatchNormalization has the statistics of its own replica"
    random = True  # dropout

    def make(self, **settings):
        return AdaBN(body(), free_head(), **settings)


def made(make=body):
    keras.utils.set_random_seed(0)
    model = AdaBN(make(), free_head())
    model.compile(keras.optimizers.SGD(0.1), LOGITS, jit_compile=False)
    fit(model, streams(), LABELS)
    return model


@pytest.fixture(scope="module")
def adaptable():
    """Return one model for several batch sizes. Each pass replaces all statistics."""
    return made()


def norm(model, name):
    return model.feature_extractor.get_layer(name)


def statistics(layer):
    return arrays([layer.moving_mean, layer.moving_variance])


@pytest.mark.parametrize("batch_size", [2, 5, 11, 128])
def test_first_layer_gets_the_statistics_of_the_whole_target(adaptable, batch_size):
    model = adaptable
    weights = arrays(model.trainable_variables)
    model.adapt(TARGET, batch_size=batch_size)
    expected = [TARGET.mean(axis=0), TARGET.var(axis=0)]
    assert_close(statistics(norm(model, "first")), expected, 1e-6)
    assert_close(model.trainable_variables, weights)


def test_second_layer_gets_the_statistics_of_the_first_layers_output():
    model = made()
    model.adapt(TARGET)
    first, dense = norm(model, "first"), model.feature_extractor.layers[1]
    x = (TARGET - TARGET.mean(axis=0)) / np.sqrt(TARGET.var(axis=0) + first.epsilon)
    x = array(dense(x * first.gamma + first.beta))  # no dropout
    expected = [x.mean(axis=0), x.var(axis=0)]
    assert_close(statistics(norm(model, "second")), expected, 1e-5)


def test_predictions_equal_normalization_with_target_statistics():
    model = made()
    model.adapt(TARGET)
    again = made()
    for name in ("first", "second"):
        norm(again, name).momentum = 0.0
    again.feature_extractor.layers[2].rate = 0.0
    expected = again.label_head(again.feature_extractor(TARGET, training=True))
    assert_close(run(model, TARGET), expected, 1e-5)


@pytest.mark.parametrize("how", ["frozen layer", "frozen backbone"])
def test_frozen_layers_are_adapted_and_stay_frozen(how):
    if how == "frozen layer":
        model, inner = made(), None
        norm(model, "first").trainable = False
        layer = norm(model, "first")
    else:
        inner = body()
        model = AdaBN(FrozenBackbone(inner), free_head())
        layer = inner.get_layer("first")
    flags = [x.trainable for x in model._flatten_layers()]
    momentum = layer.momentum
    model.adapt(TARGET, batch_size=4)
    expected = [TARGET.mean(axis=0), TARGET.var(axis=0)]
    assert_close(statistics(layer), expected, 1e-6)
    assert [x.trainable for x in model._flatten_layers()] == flags
    assert not layer.trainable and layer.momentum == momentum
    assert "call" not in vars(layer)


def test_datasets_and_dictionaries_are_accepted():
    model = made()
    model.adapt(tf.data.Dataset.from_tensor_slices(TARGET).batch(4))
    expected = [TARGET.mean(axis=0), TARGET.var(axis=0)]
    assert_close(statistics(norm(model, "first")), expected, 1e-6)
    x = keras.Input((6,), name="x")
    layer = layers.BatchNormalization()
    named = keras.Model({"x": x}, layer(x))
    adapt_batch_norm(named, {"x": TARGET})
    assert_close(statistics(layer), expected, 1e-6)


def test_statistics_of_images_are_over_all_pixels():
    x = np.random.default_rng(0).normal(size=(7, 4, 4, 3)).astype("float32")
    layer = layers.BatchNormalization()
    model = keras.Sequential([keras.Input((4, 4, 3)), layer])
    adapt_batch_norm(model, x, batch_size=3)
    expected = [x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))]
    assert_close(statistics(layer), expected, 1e-6)


@pytest.fixture(scope="module")
def trained():
    """Return one model for all passes that fail, which must not change it."""
    return made()


def bad_batches():
    yield TARGET[:4]
    yield np.full((4, 6), np.nan, "float32")


def broken():
    yield TARGET[:4]
    raise tf.errors.DataLossError(None, None, "the disk is gone")


def dataset(make):
    return tf.data.Dataset.from_generator(make, output_signature=tf.TensorSpec((4, 6)))


@pytest.mark.parametrize(
    "target, error, match",
    [
        (TARGET * np.nan, ValueError, "on the target are not finite"),
        (dataset(bad_batches), ValueError, "not finite"),
        (dataset(broken), Exception, "disk is gone"),
        (TARGET[:1], ValueError, "1 examples"),
        (TARGET[:0], ValueError, "0 examples"),
        ((TARGET, LABELS), ValueError, "must have no labels"),
        (tf.data.Dataset.from_tensors((TARGET, TARGET)), ValueError, "have no labels"),
        (np.zeros((4, 7), "float32"), ValueError, "shape"),
    ],
    ids=["nan", "later nan", "broken", "one", "none", "labels", "pairs", "shape"],
)
def test_a_pass_that_fails_changes_nothing(trained, target, error, match):
    model = trained
    before = arrays(model.weights)
    layer = norm(model, "first")
    state = (layer.trainable, layer.momentum)
    with pytest.raises(error, match=match):
        model.adapt(target)
    assert_close(model.weights, before)
    assert (layer.trainable, layer.momentum) == state
    assert "call" not in vars(layer)


def test_wrong_arguments_raise():
    with pytest.raises(ValueError, match="has no BatchNormalization"):
        AdaBN(extractor(), free_head())
    with pytest.raises(ValueError, match="batch_size is 1"):
        made().adapt(TARGET, batch_size=1)


def test_two_replicas_adapt_like_one(strategy):
    one = made()
    with strategy.scope():
        two = AdaBN(body(), free_head())
        two.set_weights(one.get_weights())
        two.adapt(TARGET)
    one.adapt(TARGET)
    assert_close(two.get_weights(), one.get_weights(), 1e-6)


@pytest.mark.slow
def test_adapting_helps_if_a_channel_is_shifted():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=200)
    x = (rng.normal(size=(200, 6)) + 3.0 * y[:, None]).astype("float32")
    shifted = 4.0 * x + 20.0
    model = AdaBN(body(), layers.Dense(2))
    model.compile(
        keras.optimizers.Adam(0.02), LOGITS, metrics=["accuracy"], jit_compile=False
    )
    model.fit(x, y, epochs=8, batch_size=20, verbose=0)
    before = model.evaluate(shifted, y, verbose=0, return_dict=True)["accuracy"]
    model.adapt(shifted)
    after = model.evaluate(shifted, y, verbose=0, return_dict=True)["accuracy"]
    assert before < 0.7 < 0.95 < after


@pytest.mark.parametrize("batch_size", [4, 8])
def test_masked_positions_do_not_count(batch_size):
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 1.0, (8, 5, 3)).astype("float32")
    x[:6, 1:] = 0.0  # the first examples are mostly padding
    norm = layers.BatchNormalization()
    model = keras.Sequential([keras.Input((5, 3)), layers.Masking(), norm])
    adapt_batch_norm(model, x, batch_size=batch_size)
    seen = x[np.any(x != 0, axis=-1)]
    np.testing.assert_allclose(norm.moving_mean, seen.mean(0), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, seen.var(0), rtol=1e-3)
