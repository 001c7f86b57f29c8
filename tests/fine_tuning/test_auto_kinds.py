"""A pilot for each kind of model, data, task and optimizer, and when there is none."""

import contextlib
import io

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer import _keras
from keras_transfer.fine_tuning import converged_head
from tests import tiny

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)


def data(count=64):
    rng, y = np.random.default_rng(0), np.arange(count) % 3
    return (rng.normal(size=(count, 6)) + np.eye(6)[y]).astype("float32"), y


def dense(outputs=3, optimizer=None, loss=SPARSE, **settings):
    """Return a compiled model of two hidden layers and a head."""
    keras.utils.set_random_seed(3)
    below = tiny.mlp(widths=(5, 4))
    model = keras.Sequential([keras.Input((6,)), below, keras.layers.Dense(outputs)])
    return compiled(model, optimizer, loss, **settings)


def compiled(model, optimizer=None, loss=SPARSE, **settings):
    optimizer = optimizer or keras.optimizers.Adam(0.01)
    model.compile(optimizer, loss, **dict(jit_compile=False) | settings)
    return model


def tune(model, xy=None, **settings):
    """Return the History and what was printed."""
    xy = data() if xy is None else xy
    if isinstance(xy, tuple):
        settings = dict(batch_size=8) | settings
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        history = kt.fine_tune(model, xy, **dict(epochs=3, verbose=2) | settings)
    assert np.isfinite(history.history["loss"]).all()
    return history, said.getvalue()


def check(history, metric="loss"):
    """Check that a pilot compared finite trials."""
    rows = history.pilot.rows()
    assert len(rows) > 1 and {row["metric"] for row in rows} == {metric}
    assert all(np.isfinite([x["estimate"], x["loss"]]).all() for x in rows)
    assert sum(row["chosen"] for row in rows) == 1
    return rows


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return tuple(each[8 * index :][:8] for each in data())


WEIGHTS = np.linspace(0.5, 1.5, 64, dtype="float32")


@pytest.mark.slow
@pytest.mark.parametrize(
    "xy, settings",
    [
        (tf.data.Dataset.from_tensor_slices(data()).shuffle(64).batch(8), {}),
        (Batches(), dict(epochs=6)),
        ((*data(), WEIGHTS), {}),
        (data(), dict(class_weight="balanced")),
        ((data()[0], np.array(["a", "b", "c"])[data()[1]]), {}),
    ],
    ids=["shuffled", "PyDataset", "weighted", "balanced", "names"],
)
def test_data(xy, settings):
    check(tune(dense(), xy, **settings)[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "outputs, loss, metrics, labels, metric",
    [
        (1, "mse", [], data()[0].sum(axis=1, keepdims=True), "loss"),
        (1, "mse", ["mae"], data()[0].sum(axis=1), "mae"),
        (1, BINARY, ["accuracy"], data()[1] % 2, "accuracy"),
        (3, BINARY, ["binary_accuracy"], np.eye(3)[data()[1]], "binary_accuracy"),
        (
            3,
            BINARY,
            [keras.metrics.AUC(from_logits=True)],
            np.eye(3)[data()[1]],
            "loss",
        ),
        (
            3,
            keras.losses.CategoricalCrossentropy(from_logits=True),
            ["accuracy"],
            np.eye(3)[data()[1]],
            "accuracy",
        ),
    ],
    ids=["numbers", "mae", "binary", "several labels", "AUC", "one-hot"],
)
def test_tasks(outputs, loss, metrics, labels, metric):
    model = dense(outputs, loss=loss, metrics=metrics)
    check(tune(model, (data()[0], labels))[0], metric)


def schedule():
    return keras.optimizers.schedules.CosineDecay(0.01, 48)


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2),
        keras.optimizers.AdamW(
            schedule(), weight_decay=0.1, use_ema=True, clipnorm=1.0
        ),
    ],
    ids=["momentum and accumulation", "schedule, averages and clipping"],
)
def test_optimizers(optimizer):
    check(tune(dense(optimizer=optimizer), epochs=6)[0])


@pytest.mark.slow
def test_rates_of_the_user_are_kept():
    model = dense()
    optimizer = keras.optimizers.Adam(0.01)
    optimizer = kt.optimizers.discriminative(optimizer, model, rates={"dense_0": 0.3})
    rows = check(tune(compiled(model, optimizer))[0])
    assert {row["share"] for row in rows} == {None, 0.3}
    assert model.optimizer.rates == {"dense_0": 0.3, "dense_1": 1.0, "head": 1.0}
    assert optimizer.rates == model.optimizer.rates and not optimizer.built


@pytest.mark.slow
def test_several_steps_per_execution():
    check(tune(dense(steps_per_execution=4))[0])


@pytest.mark.slow
def test_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = dense(metrics=["accuracy"])
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    check(tune(model)[0], "accuracy")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


@pytest.mark.slow
def test_two_replicas_try_the_same(strategy):
    rows = check(tune(dense(metrics=["accuracy"]))[0], "accuracy")
    with strategy.scope():
        model = dense(metrics=["accuracy"])
    found = check(tune(model)[0], "accuracy")
    assert [x["candidate"] for x in found] == [x["candidate"] for x in rows]
    for name in ("estimate", "loss"):
        expected = [row[name] for row in rows]
        assert [row[name] for row in found] == pytest.approx(expected, abs=1e-4)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(4, name="hidden")
        self.out = keras.layers.Dense(3, name="out")

    def call(self, x):
        return self.out(self.hidden(x))


@pytest.mark.slow
def test_without_cached_features_the_head_trains_in_each_trial():
    keras.utils.set_random_seed(0)
    model = Subclassed()
    model(np.ones((1, 6)))
    history, said = tune(compiled(model, metrics=["accuracy"]), epochs=6)
    rows = check(history, "accuracy")
    assert all(row["steps"] for row in rows) and "without steps" not in said


@pytest.mark.slow
def test_an_output_for_each_pixel(monkeypatch):
    monkeypatch.setattr(converged_head, "MOST_EPOCHS", 10)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 2))
    x = keras.layers.Conv2D(4, 3, padding="same", name="block_1")(inputs)
    model = keras.Model(inputs, keras.layers.Conv2D(3, 1, name="logits")(x))
    x = np.random.default_rng(0).normal(size=(64, 4, 4, 2)).astype("float32")
    y = (x[..., 0] > 0).astype(int) + (x[..., 1] > 0)
    settings = dict(batch_size=32, budget=2, epochs=9)
    model = compiled(model, metrics=["accuracy"])
    check(tune(model, (x, y), **settings)[0], "accuracy")


@pytest.mark.slow
def test_two_outputs():
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5, name="block_1")(inputs)
    outputs = {"a": keras.layers.Dense(3, name="a")(x)}
    outputs["b"] = keras.layers.Dense(1, name="b")(x)
    model = keras.Model(inputs, outputs)
    compiled(model, loss={"a": SPARSE, "b": "mse"}, metrics={"a": ["accuracy"]})
    x, y = data()
    labels = {"a": y, "b": x.sum(axis=1, keepdims=True)}
    check(tune(model, (x, labels), epochs=6)[0])


@pytest.mark.slow
def test_a_model_without_a_head():
    history, _ = tune(tiny_without_head(), images())
    rows = check(history)
    assert not {"lp-ft", "gradual"} & {row["strategy"] for row in rows}
    history, _ = tune(tiny_without_head(), images(), epochs=1)
    assert history.strategy == "full"


def tiny_without_head():
    keras.utils.set_random_seed(0)
    model = tiny.conv_blocks()
    model.get_layer("logits").trainable = False
    return compiled(model)


def images(count=64):
    x = np.random.default_rng(0).normal(size=(count, 6, 6, 2))
    return x.astype("float32"), np.arange(count) % 3


@pytest.mark.slow
def test_classes_with_few_examples():
    x, y = data()
    y = np.where(y == 2, 0, y)
    y[7] = 2  # once
    check(tune(dense(metrics=["accuracy"]), (x, y))[0], "accuracy")


# No pilot.


@pytest.mark.slow
@pytest.mark.parametrize(
    "xy, settings, reason",
    [
        (data(39), {}, "because 39 labels are too few to hold any out"),
        (data(), dict(budget=0), "because budget=0"),
        (data(), dict(budget=0.1), "steps are too few for a pilot"),
        # The head has no cached features, so it needs a trial of its own.
        (Batches(), {}, "because 24 steps are too few for a pilot"),
    ],
)
def test_without_a_pilot_the_reason_is_printed(xy, settings, reason):
    history, said = tune(dense(), xy, **settings)
    assert "fine_tune: no pilot, " in said and reason in said
    assert history.pilot is None and history.strategy == "lp-ft"


@pytest.mark.slow
def test_without_a_pilot_the_run_is_that_of_the_strategy_by_name():
    model, by_name = dense(), dense()
    keras.utils.set_random_seed(1)
    tune(model, budget=0)
    keras.utils.set_random_seed(1)
    tune(by_name, strategy="lp-ft", budget=1)
    for one, other in zip(model.get_weights(), by_name.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_reason_of_the_strategy_is_printed_once():
    history, said = tune(dense(), Batches(), epochs=1)  # no cache for the head
    assert history.pilot is None and history.strategy == "probe"
    assert said.count("because one epoch is too few to train more") == 1
    assert "pilot" not in said


@pytest.mark.parametrize("budget", [-1, float("nan"), float("inf"), True, "1"])
def test_a_budget_that_is_not_a_number_of_0_or_more_raises(budget):
    model = dense()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"budget=.* must be a finite number of 0"):
        tune(model, budget=budget)
    with pytest.raises(ValueError, match="budget="):
        tune(model, budget=budget, strategy="lp-ft")
    assert all(map(np.array_equal, before, model.get_weights()))
    assert not _keras.inner_optimizer(model.optimizer).built


def test_a_budget_for_another_strategy_raises():
    with pytest.raises(ValueError, match="budget=2 has no effect with strategy='full'"):
        tune(dense(), budget=2, strategy="full")
