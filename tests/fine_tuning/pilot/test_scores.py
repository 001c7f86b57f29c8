"""Scores on held-out examples: means, standard errors, and which metric they use."""

import math

import keras
import numpy as np
import pytest

from keras_transfer.fine_tuning.pilot.scores import GROUPS
from keras_transfer.fine_tuning.pilot.scores import Score
from keras_transfer.fine_tuning.pilot.scores import score
from keras_transfer.fine_tuning.pilot.scores import score_batches

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def of(values, losses=None, sizes=None, larger=True):
    losses = np.zeros(len(values)) if losses is None else losses
    return Score(values, losses, sizes or [1] * len(values), "accuracy", larger)


def test_mean_and_standard_error_are_those_of_single_examples():
    values = [1.0, 0.0, 1.0, 1.0]
    assert of(values).mean == 0.75
    assert of(values).error == pytest.approx(np.std(values, ddof=1) / math.sqrt(4))
    assert of([0.5, 1.0], sizes=[3, 1]).mean == 0.625
    assert of([0.5], sizes=[9]).error == math.inf


def test_a_gain_on_the_same_examples_has_a_smaller_error():
    values = np.random.default_rng(0).normal(size=50)
    better, worse = of(values + 0.1, losses=values), of(values, losses=values + 0.2)
    gain, error = better.gain(worse)
    assert gain == pytest.approx(0.1) and error < 1e-9 < worse.error
    gain, error = better.loss_gain(worse)
    assert gain == pytest.approx(0.2) and error < 1e-9
    gain, error = better.gain(of(values[::-1]))
    assert error > worse.error


def test_scores_of_several_folds_are_joined():
    first, second = of([1.0, 0.0], sizes=[2, 1]), of([0.5], sizes=[1])
    joined = first.joined(second)
    assert joined.mean == (2 + 0 + 0.5) / 4
    assert Score(*joined.to_config()).to_config() == joined.to_config()


def test_a_smaller_error_is_shown_as_it_is_compiled():
    assert of([-2.0, -4.0], larger=False).summary()["estimate"] == 3.0
    assert of([2.0, math.nan]).summary() == dict(estimate=None, error=None, loss=None)
    assert not of([1.0], losses=[math.inf]).finite


def compiled(metrics=(), loss=SPARSE, outputs=3, **settings):
    """Return a model whose outputs are its inputs."""
    inputs = keras.Input((outputs,))
    model = keras.Model(inputs, keras.layers.Activation("linear")(inputs))
    settings = dict(metrics=list(metrics), jit_compile=False) | settings
    model.compile("sgd", loss, **settings)
    return model


def data(count=40):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 3)).astype("float32"), np.arange(count) % 3


def losses_of(x, y):
    return keras.ops.convert_to_numpy(
        keras.losses.sparse_categorical_crossentropy(y, x, from_logits=True)
    )


def test_a_score_is_the_mean_over_all_examples():
    x, y = data()
    model = compiled(["accuracy"])
    found = score(model, (x, y), None, y)
    right = (x.argmax(axis=1) == y).astype(float)
    losses = losses_of(x, y)
    assert found.metric == "accuracy" and len(found.values) == GROUPS
    assert found.mean == pytest.approx(right.mean())
    assert found.loss == pytest.approx(losses.mean(), rel=1e-5)
    few = score(model, (x[:20], y[:20]), None, y[:20])
    assert few.values == pytest.approx(right[:20])
    assert few.losses == pytest.approx(losses[:20], rel=1e-5)
    assert model.metrics[0].result() == 0


def test_class_weights_and_sample_weights_count_in_the_loss():
    x, y = data()
    weights = {0: 3.0, 1: 1.0, 2: 0.0}
    expected = losses_of(x, y) * np.array([3.0, 1.0, 0.0])[y]
    of_classes = score(compiled(["accuracy"]), (x, y), weights, y)
    assert of_classes.loss == pytest.approx(expected.mean(), rel=1e-5)
    arrays = x, y, np.array([3.0, 1.0, 0.0])[y]
    of_examples = score(compiled(["accuracy"]), arrays, None, y)
    assert of_examples.losses == pytest.approx(of_classes.losses)


@pytest.mark.parametrize(
    "metrics, name, larger",
    [
        ([], "loss", False),
        (["accuracy"], "accuracy", True),
        ([keras.metrics.SparseTopKCategoricalAccuracy(2, name="top")], "top", True),
        ([keras.metrics.MeanSquaredError(name="mse")], "mse", False),
    ],
)
def test_the_first_mean_metric_is_compared_and_otherwise_the_loss(
    metrics, name, larger
):
    x, y = data()
    if name == "mse":
        y = np.eye(3)[y]
        found = score(compiled(metrics, "mse"), (x, y), None, None)
        assert found.mean == pytest.approx(-np.square(x - y).mean(), rel=1e-5)
    else:
        found = score(compiled(metrics), (x, y), None, y)
    assert (found.metric, found.larger) == (name, larger)
    if name == "loss":
        assert found.values == pytest.approx(-found.losses)


def test_a_metric_that_is_not_a_mean_over_examples_is_not_compared():
    x, y = data()
    x, y = 1 / (1 + np.exp(-x[:, :1])), (y > 0).astype("float32")
    model = compiled([keras.metrics.AUC(name="auc")], "binary_crossentropy", 1)
    assert score(model, (x, y), None, None).metric == "loss"


def test_with_several_outputs_the_loss_of_all_is_compared():
    inputs = keras.Input((3,))
    outputs = {"a": inputs, "b": keras.layers.Rescaling(2.0, name="b")(inputs)}
    model = keras.Model(inputs, outputs)
    model.compile(
        "sgd", {"a": SPARSE, "b": "mse"}, metrics={"a": ["accuracy"]}, jit_compile=False
    )
    x, y = data()
    found = score(model, (x, {"a": y, "b": x}), None, None)
    assert found.metric == "loss"
    expected = losses_of(x, y).mean() + np.square(x).mean()
    assert found.loss == pytest.approx(expected, rel=1e-5)


LOGITS = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
LABELS = np.arange(64) % 3


def test_weights_of_examples_count_across_batches():
    """Also if all examples of a batch have no weight."""
    model = compiled(metrics=[], weighted_metrics=["accuracy"])
    weights = np.where(np.arange(64) < 32, 0.0, np.linspace(0.1, 2, 64))
    parts = [slice(0, 32), slice(32, 40), slice(40, 64)]
    batches = [(LOGITS[part], LABELS[part], weights[part]) for part in parts]
    found = score_batches(model, batches)
    loss, accuracy = model.evaluate(LOGITS, LABELS, 64, 0, sample_weight=weights)
    assert found.mean == pytest.approx(accuracy, rel=1e-5)
    assert found.loss == pytest.approx(loss, rel=1e-5)
    plain = score_batches(model, [(LOGITS, LABELS)])
    assert plain.mean == pytest.approx((LOGITS.argmax(1) == LABELS).mean())


def test_a_penalty_of_weights_is_no_loss_of_examples():
    def model(penalty):
        inputs = keras.Input((3,))
        dense = keras.layers.Dense(3, kernel_regularizer=penalty)
        model = keras.Model(inputs, dense(inputs))
        dense.set_weights([np.eye(3), np.zeros(3)])
        model.compile("sgd", SPARSE, jit_compile=False)
        return model

    batches = [(LOGITS[:40], LABELS[:40]), (LOGITS[40:], LABELS[40:])]
    scores = [score_batches(model(x), batches) for x in (None, keras.regularizers.L2())]
    assert scores[0].loss == pytest.approx(scores[1].loss, rel=1e-5)
    assert scores[0].mean == pytest.approx(scores[1].mean, rel=1e-5)


def test_a_root_of_a_mean_is_not_averaged():
    root = keras.metrics.RootMeanSquaredError()
    model = compiled(metrics=[root, "mae"], loss="mse")
    found = score(model, (LOGITS, LOGITS + 1), None, None)
    assert found.metric == "mae"
