"""Training the head on cached features equals training it in the whole model."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer import _keras
from keras_transfer.fine_tuning.cached_head import CachedHead
from tests import tiny
from tests.contracts.compare import assert_close

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Counted(keras.layers.Layer):
    """Count the examples, in the graph."""

    def build(self, shape):
        self.count = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False, name="count"
        )

    def call(self, x):
        self.count.assign_add(keras.ops.shape(x)[0])
        return x


class Live(keras.Model):
    """A model with its own train step, so its features are not cached."""

    def train_step(self, data):
        return super().train_step(data)


def data(count=22, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 6)).astype("float32")
    return x, rng.permutation(np.arange(count) % classes)


def make(optimizer="adam", loss=SPARSE, units=3, live=False, norm=True, **settings):
    """Return a compiled model with the same initial weights in each call."""
    keras.utils.set_random_seed(3)
    stem = keras.Sequential([keras.Input((6,)), Counted(), tiny.mlp(widths=(5,))])
    layers = [stem, keras.layers.Dense(units, kernel_regularizer="l2", name="logits")]
    if norm:
        layers.insert(1, keras.layers.BatchNormalization(name="norm"))
    model = keras.Sequential([keras.Input((6,)), *layers])
    # A head that is not new trains in the epochs alone.
    layers[-1].bias.assign(np.linspace(0.1, 0.3, units))
    if live:
        model = Live(model.inputs, model.outputs)
    if "metrics" in settings:
        settings["metrics"] = [new(each) for each in settings["metrics"]]
    model.compile(new(optimizer), loss, **dict(jit_compile=False) | settings)
    return model


def new(thing):
    """Return a new optimizer or metric with the same settings."""
    return thing if isinstance(thing, str) else thing.from_config(thing.get_config())


def counted(model):
    (count,) = (weight for weight in model.weights if weight.name == "count")
    return _keras.value(count).item()


def both(xy, validation, settings, **compiled):
    """Return models and histories of the head phase, with and without cache."""
    found = []
    for live in (False, True):
        model = make(live=live, **compiled)
        arguments = dict(epochs=2, strategy="probe", verbose=0) | settings
        history = kt.fine_tune(model, xy, validation_data=validation, **arguments)
        found.append((model, history))
    return found


def assert_same(found, atol=1e-5):
    (cached, history), (live, other) = found
    pairs = zip(cached.weights, live.weights, strict=True)
    assert_close(*zip(*((a, b) for a, b in pairs if a.name != "count")), atol)
    assert history.history.keys() == other.history.keys()
    for key in history.history.keys() - {"seconds"}:
        np.testing.assert_allclose(
            history.history[key], other.history[key], rtol=0, atol=atol, err_msg=key
        )
    steps = [_keras.value(model.optimizer.iterations) for model in (cached, live)]
    assert steps[0] == steps[1] > 0


def one_hot(count=22):
    x, y = data(count)
    return x, np.eye(3, dtype="float32")[y]


def dataset(count=22, weighted=False):
    parts = data(count)
    parts += (np.linspace(0.1, 2, count),) if weighted else ()
    return tf.data.Dataset.from_tensor_slices(parts).batch(8)


CASES = {
    "classes": (
        data(),
        data(9),
        dict(batch_size=8, class_weight={1: 9.0}, validation_freq=2),
        dict(metrics=["accuracy"], weighted_metrics=["accuracy"]),
    ),
    "one-hot": (
        (*one_hot(), np.linspace(0, 3, 22)),
        (*one_hot(9), np.linspace(0, 3, 9)),
        dict(batch_size=4),
        dict(
            optimizer=keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
            loss=keras.losses.CategoricalCrossentropy(from_logits=True),
            weighted_metrics=["accuracy"],
        ),
    ),
    "multi-label": (
        one_hot(),
        one_hot(9),
        dict(batch_size=8),
        dict(
            loss=keras.losses.BinaryCrossentropy(from_logits=True),
            metrics=[keras.metrics.F1Score(name="f1")],
            steps_per_execution=2,
        ),
    ),
    "binary": (
        data(classes=2),
        None,
        dict(batch_size=99),
        dict(
            loss=keras.losses.BinaryCrossentropy(from_logits=True),
            units=1,
            jit_compile=True,
        ),
    ),
    "regression": (
        dataset(weighted=True),
        dataset(9),
        {},
        dict(
            optimizer=keras.optimizers.AdamW(0.01, global_clipnorm=0.1),
            loss=keras.losses.MeanSquaredError(reduction="sum"),
            metrics=["mae"],
            units=1,
        ),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_cached_head_trains_as_in_the_whole_model(case):
    xy, validation, settings, compiled = CASES[case]
    found = both(xy, validation, settings, **compiled)
    assert_same(found)
    held_out = 9 if validation else 0
    assert counted(found[0][0]) <= 22 + held_out + 1  # and one example for a trace
    assert counted(found[1][0]) >= 2 * 22


@pytest.mark.slow
@pytest.mark.parametrize("used", [True, False])
def test_metrics_are_reset_in_each_fit(used):
    model = make(metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")])
    if used:
        model.evaluate(*data(9), verbose=0)
    metric = _keras.compile_arguments(model)["metrics"][0]
    counts = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            counts.append(int(_keras.value(metric.variables[1])))

    strategy = "probe" if used else "lp-ft"
    settings = dict(epochs=2, strategy=strategy, batch_size=11, verbose=0)
    kt.fine_tune(model, data(), validation_data=data(9), callbacks=[Look()], **settings)
    assert counts == [11, 22] * 2


@pytest.mark.slow
def test_mixed_precision_trains_as_in_the_whole_model():
    keras.config.set_dtype_policy("mixed_float16")
    found = both(data(), data(9), {})
    assert_same(found, 2e-3)
    for model, _ in found:
        assert type(model.optimizer) is keras.optimizers.LossScaleOptimizer


@pytest.mark.slow
def test_two_replicas_train_like_one(strategy):
    found = []
    for scope in (contextlib.nullcontext(), strategy.scope()):
        with scope:
            model = make(norm=False)  # each replica would have its own statistics
        arguments = dict(epochs=2, strategy="probe", batch_size=8, verbose=0)
        history = kt.fine_tune(model, data(24), validation_data=data(9), **arguments)
        found.append((model, history))
    assert_same(found)
    assert counted(model) <= 24 + 9 + 4


@pytest.mark.slow
def test_features_of_a_dataset_that_shuffles_are_computed_once():
    shuffled = dataset().unbatch().shuffle(22).batch(8)
    model = make()
    kt.fine_tune(
        model, shuffled, validation_data=shuffled, epochs=3, strategy="probe", verbose=0
    )
    assert counted(model) <= 22 + 22 + 1


def head_of(model):
    cached = CachedHead(model, kt.layer_groups(model)[-1])
    cached.cut()
    return cached


def test_models_that_cannot_be_cached_raise():
    with pytest.raises(ValueError, match="Live has its own train_step"):
        head_of(make(live=True))

    class Louder(keras.Model):
        def call(self, x):
            return 2 * super().call(x)

    plain = tiny.mlp()
    model = Louder(plain.inputs, plain.outputs)
    model.compile("sgd", "mse", jit_compile=False)
    with pytest.raises(ValueError, match="Louder has its own call"):
        head_of(model)
    with pytest.raises(ValueError, match="averages"):
        head_of(make(keras.optimizers.SGD(use_ema=True)))
    patched = make()
    patched.test_step = lambda data: {}
    with pytest.raises(ValueError, match="has its own test_step"):
        head_of(patched)
