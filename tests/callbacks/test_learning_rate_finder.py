"""The range test: its result, the unchanged model afterward, and wrong input."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer import _keras
from tests import tiny

SHORT = dict(lowest=1e-5, highest=1e-1, steps=10)


def data(count=40, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, 6)).astype("float32")
    return x, generator.normal(size=(count, 3)).astype("float32")


def stochastic(noise=True):
    """Return a network with BatchNorm, Dropout and unseeded noise."""
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5, name="hidden")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    if noise:
        x = GlobalNoise(name="noise")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x))


class GlobalNoise(keras.layers.Layer):
    """Draw from the global random state of Keras."""

    def call(self, inputs, training=False):
        if not training:
            return inputs
        return inputs + keras.random.normal(keras.ops.shape(inputs), stddev=0.1)


class Failing(keras.utils.PyDataset):
    """Raise an error at the fourth batch."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == 3:
            raise self.error
        x, y = data()
        return x[:4], y[:4]


class Batches(keras.utils.PyDataset):
    """Ten batches of four."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        x, y = data()
        return x[4 * index :][:4], y[4 * index :][:4]


def state(model):
    """Return the state of a model, its optimizer and all random generators."""
    variables = [*model.variables, *model.metrics_variables]
    if model.optimizer.built:
        variables += model.optimizer.variables
    name, keys, *rest = np.random.get_state()
    return {
        "variables": {id(each): _keras.snapshot([each])[0] for each in variables},
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), rest),
        "flags": (_keras.flags(model), [each.trainable for each in model.weights]),
        "history": getattr(model, "history", None),
        "stop": model.stop_training,
        "optimizer": id(model.optimizer),
        "built": model.optimizer.built,
        "function": id(model.train_function),
        "steps": model.steps_per_execution,
    }


def assert_same(old, new):
    for key in old.keys() - {"variables"}:
        assert old[key] == new[key], key
    # `fit` may have created more metrics.
    assert old["variables"].keys() <= new["variables"].keys()
    for key, before in old["variables"].items():
        for a, b in zip(before, new["variables"][key], strict=True):
            assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def trained(used, make, xy=None, before=0, **settings):
    """Return weights and losses after training, with or without a range test."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)
    model = make()
    xy = xy or data()
    arguments = dict(batch_size=8, verbose=0)
    if before:
        model.fit(*xy, epochs=before, **arguments)
    if used:
        old = state(model)
        curve = kt.find_learning_rate(model, xy, **SHORT | settings)
        assert len(curve.rates) > 5
        assert_same(old, state(model))
    history = model.fit(*xy, epochs=2, **arguments)
    return _keras.snapshot(model.variables), history.history


def assert_as_if_never_run(make, **settings):
    ran, history = trained(True, make, **settings)
    never, expected = trained(False, make, **settings)
    assert history == expected
    for a, b in zip(ran, never, strict=True):
        assert [each.tobytes() for each in a] == [each.tobytes() for each in b]


def compiled(model, optimizer="adam", **kwargs):
    model.compile(optimizer, "mse", **dict(jit_compile=False) | kwargs)
    return model


# The result.


def quadratic(curvature, noise=0.0):
    """Return a model of loss `curvature / 2 * (w - 1 +- noise) ** 2`, and its data."""
    model = keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros"),
        ]
    )
    model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)
    scale = np.full((8, 1), np.sqrt(curvature / 2), "float32")
    sign = np.array([[1], [1], [1], [1], [-1], [-1], [-1], [-1]])
    return model, (scale, scale * (1 + noise * sign))


@pytest.mark.parametrize("curvature", [0.1, 1.0, 100.0])
def test_a_quadratic_diverges_above_two_over_its_curvature(curvature):
    # Without noise, w would reach 1 exactly and then have no gradient.
    model, xy = quadratic(curvature, noise=0.1)
    bound = 2 / curvature
    sweep = dict(lowest=bound / 30, highest=bound * 1e4, steps=200, smoothing=0.0)
    curve = kt.find_learning_rate(model, xy, **sweep, batch_size=4)
    assert bound < curve.rates[-1] < 10 * bound
    assert bound / 30 < curve.suggestion < bound


def test_the_losses_equal_gradient_descent_by_hand():
    model, xy = quadratic(2.0)
    curve = kt.find_learning_rate(
        model, xy, lowest=0.01, highest=0.1, steps=10, smoothing=0.5
    )
    w, average, expected = 0.0, 0.0, []
    for step, rate in enumerate(np.geomspace(0.01, 0.1, 10)):
        average = 0.5 * average + 0.5 * (w - 1) ** 2
        expected.append(average / (1 - 0.5 ** (step + 1)))
        w -= rate * 2 * (w - 1)
    np.testing.assert_allclose(curve.losses, expected, rtol=1e-5)
    np.testing.assert_allclose(curve.rates, np.geomspace(0.01, 0.1, 10))


def test_a_loss_that_is_not_finite_ends_the_curve():
    model, xy = quadratic(1e30)
    curve = kt.find_learning_rate(model, xy, lowest=1e-34, highest=1e20, steps=50)
    assert np.isfinite(curve.losses).all()
    assert len(curve.rates) == len(curve.losses) < 50


def test_a_loss_that_never_falls_has_no_suggestion():
    rates = np.geomspace(1e-3, 1, 20)
    curve = kt.callbacks.LearningRateCurve(rates, np.linspace(1, 2, 20))
    assert curve.suggestion is None
    assert len(curve.plot().lines) == 1


def test_the_suggestion_is_in_the_long_valley_and_not_at_a_lucky_batch():
    rates = np.geomspace(1e-4, 1, 41)
    losses = np.where(rates < 1e-3, 1.0, 1 - np.log10(rates / 1e-3) / 4)
    losses = np.where(rates > 0.1, 0.5 + 20 * (rates - 0.1), losses)
    losses[3] = 0.2  # the steepest fall of all
    suggestion = kt.callbacks.LearningRateCurve(rates, losses).suggestion
    assert suggestion == pytest.approx(1e-2, rel=0.3)


def test_the_plot_marks_the_suggestion_on_a_log_axis():
    from matplotlib import pyplot

    rates = np.geomspace(1e-4, 1, 9)
    losses = np.array([1, 0.99, 0.97, 0.9, 0.7, 0.5, 0.3, 0.4, 2.0])
    curve = kt.callbacks.LearningRateCurve(rates, losses)
    figure, ax = pyplot.subplots()
    assert curve.plot(ax) is ax
    assert ax.get_xscale() == "log"
    assert ax.lines[1].get_xdata()[0] == curve.suggestion
    assert f"{curve.suggestion:.2g}" in ax.get_legend().get_texts()[0].get_text()
    pyplot.close(figure)


@pytest.mark.slow
def test_the_rates_multiply_the_factors_of_groups():
    model = tiny.mlp()
    sgd = keras.optimizers.SGD(0.5)
    optimizer = kt.optimizers.discriminative(sgd, model, layer_decay=0.5)
    optimizer.set_rates({"dense_0": 0.125})
    compiled(model, optimizer)
    before = model.get_weights()
    seen = []

    class Watch(Batches):
        def __getitem__(self, index):
            inner = model.optimizer
            seen.append((inner.rates, type(inner), inner is optimizer))
            return super().__getitem__(index)

    curve = kt.find_learning_rate(model, Watch(), **SHORT, smoothing=0.0)
    assert optimizer.rates["dense_0"] == 0.125
    assert seen[-1] == (optimizer.rates, type(optimizer), False)
    for a, b in zip(before, model.get_weights(), strict=True):
        assert np.array_equal(a, b)
    # By hand: one step at each rate, times the factor of the group.
    losses = []
    for step, rate in enumerate(curve.rates):
        optimizer.learning_rate = rate
        losses.append(model.train_on_batch(*Batches()[step]))
        model.reset_metrics()
    np.testing.assert_allclose(curve.losses, losses, rtol=1e-5)


# The model is unchanged afterward.


@pytest.mark.slow
def test_training_continues_as_without_the_test():
    assert_as_if_never_run(lambda: compiled(stochastic(), metrics=["mae"]), before=1)


@pytest.mark.slow
def test_discriminative_rates_and_averages_are_restored():
    # With mixed_float16, Keras wraps the optimizer to scale the loss.
    keras.config.set_dtype_policy("mixed_float16")

    def make():
        model = stochastic()
        optimizer = keras.optimizers.AdamW(1e-2, use_ema=True, weight_decay=0.1)
        return compiled(model, kt.optimizers.discriminative(optimizer, model))

    assert_as_if_never_run(make, before=1)


@pytest.mark.slow
def test_a_schedule_is_ignored_and_restored():
    def make():
        schedule = keras.optimizers.schedules.CosineDecay(1e-2, 20)
        return compiled(tiny.mlp((4, 3)), keras.optimizers.Nadam(schedule))

    assert_as_if_never_run(make, before=1)


@pytest.mark.slow
def test_accumulation_and_compiled_steps():
    def make():
        optimizer = keras.optimizers.Adam(1e-2, gradient_accumulation_steps=2)
        kwargs = dict(jit_compile=True, steps_per_execution=5)
        return compiled(tiny.mlp(widths=(3,)), optimizer, **kwargs)

    assert_as_if_never_run(make)


@pytest.mark.slow
def test_frozen_layers_stay_frozen():
    def make():
        model = tiny.mlp()
        model.layers[1].trainable = False
        return compiled(model)

    assert_as_if_never_run(make)


@pytest.mark.slow
def test_a_model_on_two_replicas(strategy):
    def make():
        with strategy.scope():
            # Keras cannot create its global generator on a replica.
            return compiled(stochastic(noise=False), keras.optimizers.Adam(1e-2))

    assert_as_if_never_run(make)


@pytest.mark.slow
def test_each_replica_is_restored_to_its_own_values(strategy):
    with strategy.scope():
        model = compiled(stochastic(noise=False))
    model.fit(*data(), batch_size=8, verbose=0)
    mean = model.get_layer("norm").moving_mean
    before = _keras.snapshot([mean])[0]
    assert len(before) == 2 and not np.array_equal(*before)
    kt.find_learning_rate(model, data(), **SHORT)
    assert np.array_equal(before, _keras.snapshot([mean])[0])


@pytest.mark.slow
def test_runs_without_a_seed(monkeypatch):
    from tensorflow.python.eager import context

    monkeypatch.delattr(context.context(), "_rng")
    model = compiled(tiny.mlp())
    assert len(kt.find_learning_rate(model, data(), **SHORT).rates) == 10


def test_steps_per_execution_does_not_reduce_the_steps():
    model = compiled(tiny.mlp(), steps_per_execution=4)
    assert len(kt.find_learning_rate(model, data(), **SHORT).rates) == 10


@pytest.mark.slow
@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_an_error_during_the_test_leaves_the_model_unchanged(error):
    model = compiled(stochastic())
    model.fit(*data(), verbose=0)
    old = state(model)
    with pytest.raises((type(error), tf.errors.OpError)):
        kt.find_learning_rate(model, Failing(error), **SHORT)
    assert_same(old, state(model))


def test_an_interrupt_of_the_first_fit_sets_no_history():
    model = compiled(stochastic())
    assert not hasattr(model, "history")

    def interrupt(y, y_pred):
        raise KeyboardInterrupt

    model.compile("adam", interrupt, jit_compile=False)
    with pytest.raises(KeyboardInterrupt):
        kt.find_learning_rate(model, data(), **SHORT)
    assert not hasattr(model, "history")
    assert not model.optimizer.built
    assert model.train_function is None


def test_random_states_are_restored():
    def draw():
        return [
            random.random(),
            np.random.rand(),
            _keras.value(keras.random.normal(())).item(),
            tf.compat.v1.random.get_seed(None),  # the next seed of a TensorFlow op
        ]

    class Drawing(Batches):
        def __getitem__(self, index):
            draw()
            return super().__getitem__(index)

    model = compiled(tiny.mlp())
    for warm in (False, True):  # Keras creates its generator at the first draw
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(5)
        expected = [draw(), draw()][warm:]
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(5)
        if warm:
            draw()
        kt.find_learning_rate(model, Drawing(), **SHORT)
        assert [draw() for _ in expected] == expected


# Data.


def dataset(batch=4):
    return tf.data.Dataset.from_tensor_slices(data()).batch(batch)


def everything(x, y):
    return True


def nothing(x, y):
    return False


@pytest.mark.parametrize(
    "make",
    [
        lambda: data(3),
        lambda: tuple(each.tolist() for each in data()),
        lambda: dataset().repeat(),
        lambda: dataset().filter(everything),
        lambda: tf.data.Dataset.from_tensor_slices((*data(), np.ones(40))).batch(8),
        lambda: Batches(workers=2),
    ],
)
def test_all_kinds_of_data_give_all_steps(make):
    model = compiled(tiny.mlp(), run_eagerly=True)  # for speed
    curve = kt.find_learning_rate(model, make(), **SHORT)
    assert len(curve.losses) == 10


def test_arrays_sorted_by_class_are_shuffled():
    x = np.ones((400, 6), "float32")
    y = np.repeat([[0.0], [9.0]], 200, axis=0).repeat(3, axis=1)
    curve = kt.find_learning_rate(
        compiled(tiny.mlp(), "sgd"), (x, y), **SHORT | dict(highest=1.1e-5)
    )
    assert curve.losses.min() > 20  # the first 200 examples alone give about 0


def test_sample_weights_scale_the_loss():
    model = compiled(tiny.mlp(), "sgd")
    flat = dict(lowest=1e-9, highest=1e-8, steps=10, smoothing=0.0)
    one = kt.find_learning_rate(model, (*data(), np.ones(40)), **flat)
    three = kt.find_learning_rate(model, (*data(), np.full(40, 3.0)), **flat)
    np.testing.assert_allclose(three.losses, 3 * one.losses, rtol=1e-5)


@pytest.mark.slow
def test_a_task_takes_its_raw_inputs():
    import keras_hub

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"]
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=words)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
        tokenizer, sequence_length=8
    )
    model = keras_hub.models.BertTextClassifier(
        backbone=tiny.bert(num_layers=1), num_classes=2, preprocessor=preprocessor
    )
    model.backbone.trainable = False  # tracing is faster
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    texts, labels = ["good", "bad", "good good", "bad bad"] * 2, [1, 0, 1, 0] * 2
    before = _keras.snapshot(model.variables)
    curve = kt.find_learning_rate(model, (texts, labels), **SHORT, batch_size=4)
    assert len(curve.losses) == 10
    raw = tf.data.Dataset.from_tensor_slices((texts, labels))
    assert len(kt.find_learning_rate(model, raw.batch(4), **SHORT).losses) == 10
    with pytest.raises(ValueError, match="not batched"):
        kt.find_learning_rate(model, raw, **SHORT)
    for a, b in zip(before, _keras.snapshot(model.variables), strict=True):
        assert a[0].tobytes() == b[0].tobytes()


# Wrong input.


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: iter(dataset()), TypeError, "only one pass"),
        (lambda: (each for each in [data()]), TypeError, "only one pass"),
        (lambda: data()[0], TypeError, r"tuple of arrays \(x, y\)"),
        (lambda: [*data()], TypeError, r"tuple of arrays \(x, y\)"),
        (lambda: (*data(), *data()), ValueError, "tuple of 4"),
        (lambda: (data()[0], data(9)[1]), ValueError, r"\[9, 40\] examples"),
        (lambda: data(0), ValueError, "is empty"),
        (lambda: (1.0, 2.0), TypeError, "not an array of examples"),
        (lambda: dataset().unbatch(), ValueError, "not batched"),
        (lambda: dataset().take(0), ValueError, "is empty"),
        (lambda: (data()[0] * np.nan, data()[1]), ValueError, "40 of 40 examples"),
        (lambda: (data()[0], data()[1] * np.nan), ValueError, "first batch is nan"),
    ],
)
def test_data_that_cannot_be_used_raises(make, error, message):
    model = compiled(tiny.mlp())
    before = model.get_weights()
    with pytest.raises(error, match=message):
        kt.find_learning_rate(model, make(), **SHORT)
    for a, b in zip(before, model.get_weights(), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_empty_data_of_unknown_length_raises():
    with pytest.raises(ValueError, match="is empty"):
        empty = dataset().filter(nothing)
        kt.find_learning_rate(compiled(tiny.mlp()), empty, **SHORT)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(lowest=0.0), "not a range of learning rates"),
        (dict(lowest=1.0, highest=0.1), "not a range of learning rates"),
        (dict(highest=float("inf")), "not a range of learning rates"),
        (dict(highest=float("nan")), "not a range of learning rates"),
        (dict(steps=9), "a whole number of 10 or more"),
        (dict(steps=20.0), "a whole number of 10 or more"),
        (dict(smoothing=1.0), "below 1"),
        (dict(batch_size=0), "above 0"),
    ],
    ids=str,
)
def test_wrong_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        kt.find_learning_rate(compiled(tiny.mlp()), data(), **arguments)


@pytest.mark.parametrize("make", [dataset, Batches])
def test_a_batch_size_with_batched_data_raises(make):
    with pytest.raises(ValueError, match="already batched"):
        kt.find_learning_rate(compiled(tiny.mlp()), make(), batch_size=4)


def test_a_model_that_cannot_be_tested_raises():
    with pytest.raises(TypeError, match="not a Keras model"):
        kt.find_learning_rate(keras.layers.Dense(1), data())
    with pytest.raises(ValueError, match="not compiled"):
        kt.find_learning_rate(tiny.mlp(), data())
    with pytest.raises(ValueError, match="not built"):
        unbuilt = keras.Sequential([keras.layers.Dense(3)])
        kt.find_learning_rate(compiled(unbuilt), data())
    with pytest.raises(ValueError, match="is frozen"):
        frozen = tiny.mlp()
        frozen.trainable = False
        kt.find_learning_rate(compiled(frozen), data())
    two = compiled(tiny.mlp())
    two.second_optimizer = keras.optimizers.SGD()
    with pytest.raises(ValueError, match="several optimizers, .'second_optimizer'."):
        kt.find_learning_rate(two, data())


@pytest.mark.slow
def test_a_train_step_without_a_loss_raises():
    class Silent(keras.Model):
        def train_step(self, data):
            return {"cost": 1.0}

    plain = tiny.mlp()
    model = compiled(Silent(plain.inputs, plain.outputs))
    with pytest.raises(ValueError, match=r"\['cost'\] and no 'loss'"):
        kt.find_learning_rate(model, data(), **SHORT)


def relu_network():
    layers = keras.layers
    return compiled_for_data(
        keras.Sequential([keras.Input((6,)), layers.Dense(4, "relu"), layers.Dense(3)])
    )


def compiled_for_data(model):
    model.compile("sgd", "mse", jit_compile=False)
    return model


@pytest.mark.parametrize("rows, batch", [(slice(0, 4), 0), (slice(20, 21), 2)])
def test_nan_in_the_data_raises(rows, batch):
    x, y = data()
    x[rows] = np.nan
    with pytest.raises(ValueError, match="of 40 examples have features that are NaN"):
        kt.find_learning_rate(relu_network(), (x, y), **SHORT)
    model = relu_network()
    before = model.get_weights()
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    with pytest.raises(ValueError, match=f"Batch {batch} of `data` has values"):
        kt.find_learning_rate(model, batches, **SHORT)
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert model.test_function is None


def test_a_loss_that_is_nan_without_any_update_raises():
    model = relu_network()
    model.compile(
        "sgd", lambda y, x: keras.ops.log(y[:, :1] - x[:, :1] * 0), jit_compile=False
    )
    x, y = data()
    y[:] = 1
    y[35:] = -1
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    with pytest.raises(ValueError, match="the first 5 batches is nan with the current"):
        kt.find_learning_rate(model, batches, **SHORT)


def test_a_dataset_of_unknown_length_ends_without_a_warning(capfd):
    batches = tf.data.Dataset.from_tensor_slices(data()).batch(8)
    batches = batches.filter(lambda x, y: True)
    curve = kt.find_learning_rate(relu_network(), batches, **SHORT)
    assert len(curve.rates) == 10
    assert "out of" not in capfd.readouterr().err.lower()


def test_printing_the_curve_shows_the_suggestion_and_the_reason():
    rates = np.array([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    losses = np.array([1.0, 0.9, 0.5, 0.4, 2.0])
    curve = kt.callbacks.LearningRateCurve(rates, losses, "the loss had risen to 2")
    assert str(curve).splitlines() == [
        "5 steps at learning rates from 0.0001 to 1; the loss had risen to 2",
        "smoothed loss: 1 at first, 0.4 at lowest, at the rate 0.1",
        "suggestion: 0.001, the middle of the longest fall of the loss, from 0.0001 to "
        "0.1",
    ]
    flat = kt.callbacks.LearningRateCurve(rates, np.arange(5.0))
    assert str(flat).splitlines()[-1].startswith("no suggestion: the loss never fell")
    curve = kt.find_learning_rate(relu_network(), data(), **SHORT)
    assert "10 steps at learning rates from 1e-05 to 0.1; the whole" in str(curve)
