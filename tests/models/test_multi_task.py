"""MultiTask: losses and metrics by task, weights, projected gradients, refusals."""

import functools

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer.data import task_mixture
from keras_transfer.models import MultiTask
from tests import tiny
from tests.contracts import fresh
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compare import run
from tests.contracts.compute import weight_gradients
from tests.contracts.model_contract import ModelContract
from tests.models.test_projected_gradients import algorithm_1

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
LOSSES = {"kind": CROSSENTROPY, "price": "mse"}
X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
KINDS, PRICES = np.arange(8) % 3, X[:, 0] - X[:, 1]
OWN = np.array([1, 1, 0, 1, 0, 0, 0, 1], "float32")
WEIGHTS = {"kind": OWN, "price": 1 - OWN}
LABELS = {"kind": KINDS, "price": PRICES}


def backbone(**settings):
    layers = [keras.layers.Dense(5, "tanh", **settings) for _ in range(2)]
    return keras.Sequential([keras.Input((4,)), *layers], name="below")


def heads():
    return {
        "kind": keras.layers.Dense(3, name="kind", dtype="float32"),
        "price": keras.layers.Dense(1, name="price", dtype="float32"),
    }


def make(weighting="fixed", **settings):
    keras.utils.set_random_seed(0)
    return MultiTask(backbone(**settings), heads(), weighting=weighting)


def compiled(weighting="fixed", optimizer=None, **settings):
    model = make(weighting)
    settings = {"metrics": {"kind": ["accuracy"]}, "jit_compile": False} | settings
    model.compile(optimizer or keras.optimizers.SGD(0.1), LOSSES, **settings)
    return model


def losses_by_hand(model, weights=WEIGHTS):
    """Return the loss of each task from the outputs, in NumPy."""
    outputs = {k: array(v).astype("float64") for k, v in run(model, X).items()}
    logits = outputs["kind"]
    rows = np.log(np.exp(logits).sum(1)) - logits[np.arange(8), KINDS]
    squares = (outputs["price"][:, 0] - PRICES) ** 2
    return {
        "kind": np.average(rows, weights=weights["kind"]),
        "price": np.average(squares, weights=weights["price"]),
    }


class Contract(ModelContract):
    loss = LOSSES
    weighting = "fixed"

    def make(self):
        return make(self.weighting)

    def inputs(self):
        return X

    def targets(self):
        return LABELS


class TestFixed(Contract):
    representative = True


class TestUncertainty(Contract):
    weighting = "uncertainty"


class TestPCGrad(Contract):
    weighting = "pcgrad"


def test_two_tasks_in_a_batch_by_hand():
    layer = keras.layers.Dense(2, use_bias=False, kernel_initializer="identity")
    below = keras.Sequential([keras.Input((2,)), layer])
    ones = dict(use_bias=False, kernel_initializer="ones")
    model = MultiTask(below, {k: keras.layers.Dense(1, **ones) for k in ("a", "b")})
    settings = dict(loss_weights={"b": 10.0}, metrics={"a": ["mae"], "b": ["mae"]})
    model.compile("sgd", {"a": "mse", "b": "mae"}, **settings)
    # Outputs of 3, 4 and 5. The rows of `a` are off by 1 and 3, that of `b` by 2.
    x = np.array([[1.0, 2.0], [2.0, 2.0], [3.0, 2.0]])
    y = {"a": np.array([2.0, 1.0, 0.0]), "b": np.array([0.0, 0.0, 7.0])}
    weight = {"a": np.array([1.0, 1.0, 0.0]), "b": np.array([0.0, 0.0, 1.0])}
    found = model.evaluate(x, y, sample_weight=weight, return_dict=True, verbose=0)
    expected = {"a_loss": 5, "b_loss": 2, "a_mae": 2, "b_mae": 2, "loss": 25}
    assert found == pytest.approx(expected)


def test_losses_and_metrics_count_their_own_rows():
    model = compiled(loss_weights={"price": 0.5})
    expected = losses_by_hand(model)
    found = model.evaluate(
        X, LABELS, sample_weight=WEIGHTS, return_dict=True, verbose=0
    )
    right = array(run(model, X)["kind"]).argmax(1) == KINDS
    assert found["kind_accuracy"] == pytest.approx(np.average(right, weights=OWN))
    assert found["kind_loss"] == pytest.approx(expected["kind"], abs=1e-5)
    assert found["price_loss"] == pytest.approx(expected["price"], abs=1e-5)
    total = expected["kind"] + 0.5 * expected["price"]
    assert found["loss"] == pytest.approx(total, abs=1e-5)


def test_a_batch_without_a_task():
    model = compiled()
    weights = {"kind": np.ones(8), "price": np.zeros(8)}
    settings = dict(sample_weight=weights, verbose=0, batch_size=8)
    before = [array(each) for each in model.heads["price"].weights]
    history = model.fit(X, LABELS, **settings).history
    assert history["price_loss"] == [0.0]
    assert np.isfinite(history["loss"][0])
    assert_close(model.heads["price"].weights, before)
    # Such a batch does not count in the mean of the loss.
    weights["price"][:2] = 1
    settings |= {"batch_size": 2, "return_dict": True}
    found = model.evaluate(X, LABELS, **settings)
    weights = {"kind": OWN, "price": weights["price"]}
    assert found["price_loss"] == pytest.approx(
        losses_by_hand(model, weights)["price"], abs=1e-5
    )


def test_learned_weights_are_those_of_kendall():
    model = compiled("uncertainty")
    model.log_variances.values.assign([0.4, -0.6])
    each = losses_by_hand(model)
    settings = dict(sample_weight=WEIGHTS, verbose=0, batch_size=8)
    found = model.evaluate(X, LABELS, return_dict=True, **settings)
    expected = np.exp(-0.4) * each["kind"] + 0.2
    expected += 0.5 * np.exp(0.6) * each["price"] - 0.3
    assert found["loss"] == pytest.approx(expected, abs=1e-5)
    model.fit(X, LABELS, **settings)
    slopes = [
        0.5 - np.exp(-0.4) * each["kind"],
        0.5 - 0.5 * np.exp(0.6) * each["price"],
    ]
    expected = np.array([0.4, -0.6]) - 0.1 * np.array(slopes)
    np.testing.assert_allclose(array(model.log_variances.values), expected, atol=1e-5)
    # A task without rows has neither a loss nor a penalty.
    settings["sample_weight"] = {"kind": OWN, "price": 0 * OWN}
    before = array(model.log_variances.values)[1]
    model.fit(X, LABELS, **settings)
    assert array(model.log_variances.values)[1] == before


def task_gradients(model):
    """Return the gradient of each task for all weights, of separate losses."""
    found = []
    for name in LABELS:

        def loss(name=name):
            return model.compute_loss(
                X,
                {name: LABELS[name]},
                model(X, training=False),
                {name: WEIGHTS[name]},
                training=False,
            )

        each = weight_gradients(loss, model.trainable_variables, "zero")
        found.append([array(one) for one in each])
    return found


@functools.cache
def conflict():
    """Return a model whose tasks have gradients that conflict, as (weights, seed)."""
    for seed in range(20):
        model = compiled("pcgrad")
        draw = np.random.default_rng(seed)
        values = [draw.normal(size=each.shape) for each in model.get_weights()]
        model.set_weights(values)
        one, two = (
            np.concatenate([g.ravel() for g in each[:4]])
            for each in task_gradients(model)
        )
        if one @ two < -0.1 * np.linalg.norm(one) * np.linalg.norm(two):
            return values
    raise AssertionError("no seed gives a conflict")


@pytest.mark.parametrize("settings", [{}, {"run_eagerly": True}])
def test_pcgrad_is_algorithm_1_for_the_backbone(settings):
    model = compiled("pcgrad", keras.optimizers.SGD(1.0), **settings)
    model.set_weights(conflict())
    gradients = task_gradients(model)
    before = model.get_weights()
    flat = [np.concatenate([g.ravel() for g in each[:4]]) for each in gradients]
    projected = algorithm_1(np.array(flat, "float64"), [[0, 1], [0, 1]]).sum(0)
    assert np.abs(projected - sum(flat)).max() > 1e-3
    fixed = compiled("fixed", keras.optimizers.SGD(1.0), **settings)
    fixed.set_weights(before)
    arguments = dict(sample_weight=WEIGHTS, verbose=0, batch_size=8)
    histories = [each.fit(X, LABELS, **arguments).history for each in (model, fixed)]
    for name, values in histories[0].items():  # the same losses and metrics
        assert values == pytest.approx(histories[1][name])
    moved = [a - b for a, b in zip(before, model.get_weights(), strict=True)]
    found = np.concatenate([each.ravel() for each in moved[:4]])
    np.testing.assert_allclose(found, projected, rtol=0, atol=1e-4)
    for place in range(4, 8):  # the heads have their own gradients
        own = gradients[0][place] + gradients[1][place]
        np.testing.assert_allclose(moved[place], own, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_pcgrad_has_the_orders_of_its_seed():
    def trained(seed):
        keras.utils.set_random_seed(0)
        units = {"a": 3, "b": 3, "c": 3, "d": 3}
        made = {name: keras.layers.Dense(each) for name, each in units.items()}
        model = MultiTask(backbone(), made, weighting="pcgrad", seed=seed)
        losses = dict.fromkeys(made, CROSSENTROPY)
        model.compile(keras.optimizers.SGD(1.0), losses, jit_compile=False)
        labels = {name: (KINDS + i) % 3 for i, name in enumerate(made)}
        fit(model, X, labels, epochs=3)
        return np.concatenate([each.ravel() for each in model.get_weights()])

    first = trained(1)
    np.testing.assert_array_equal(trained(1), first)
    assert np.abs(trained(2) - first).max() > 1e-4


@pytest.mark.slow
def test_penalties_count():
    model = compiled("pcgrad")
    plain = model.evaluate(X, LABELS, return_dict=True, verbose=0)
    kt.regularizers.L2SP(0.5, 0.5).attach(model)
    found = model.evaluate(X, LABELS, return_dict=True, verbose=0)
    each = [np.sum(array(w) ** 2) for h in model.heads.values() for w in h.weights]
    assert found["loss"] - plain["loss"] == pytest.approx(0.25 * sum(each), abs=1e-4)
    fit(model, X, LABELS)


def test_pcgrad_does_not_project_a_regularizer():
    results = []
    for weighting in ("pcgrad", "fixed"):
        decay = keras.regularizers.L2(0.1)
        settings = dict(kernel_regularizer=decay, activity_regularizer=decay)
        model = make(weighting, **settings)
        model.compile(keras.optimizers.SGD(0.1), LOSSES, jit_compile=False)
        # One task alone has nothing to agree with.
        weights = {"kind": np.ones(8), "price": np.zeros(8)}
        history = fit(model, X, LABELS, sample_weight=weights, batch_size=8)
        results.append([*model.get_weights(), np.array(history.history["loss"])])
    assert_close(*results, 1e-6)


def test_pcgrad_changes_statistics_and_seeds_once():
    def trained(weighting):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.BatchNormalization(), keras.layers.Dense(5)]
        below = keras.Sequential([keras.Input((4,)), *layers])
        model = MultiTask(below, heads(), weighting=weighting, dropout=0.5)
        model.compile(keras.optimizers.SGD(0.0), LOSSES, jit_compile=False)
        fit(model, X, LABELS)
        seeds = [
            v for v in model.non_trainable_variables if "seed_generator" in v.path
        ][-1:]
        assert seeds
        return [*below.layers[0].weights, *seeds]

    assert_close(trained("pcgrad"), trained("fixed"))


def test_a_mixture_trains_and_a_reload_continues(tmp_path):
    tasks = {"kind": (X, KINDS), "price": (X[:4], PRICES[:4])}
    data = task_mixture(tasks, temperature=2.0, batch_size=4)
    model = compiled("pcgrad", keras.optimizers.Adam(0.05))
    losses = model.fit(data, epochs=4, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert list(again.heads) == ["kind", "price"]
    expected = model.evaluate(X, LABELS, return_dict=True, verbose=0)
    assert again.evaluate(X, LABELS, return_dict=True, verbose=0) == expected
    again.fit(X, LABELS, verbose=0)
    assert (
        int(array(again.optimizer.iterations))
        == int(array(model.optimizer.iterations)) + 1
    )


def test_evaluate_a_part_of_the_tasks():
    model = compiled(metrics={"kind": ["accuracy"], "price": ["mae"]})
    found = model.evaluate(X, {"kind": KINDS}, return_dict=True, verbose=0)
    assert set(found) == {"loss", "kind_loss", "kind_accuracy"}
    assert found["loss"] == pytest.approx(found["kind_loss"])


def test_a_part_of_the_tasks_with_a_loss_of_unknown_labels():
    def own(y, outputs):
        loss = keras.losses.sparse_categorical_crossentropy
        return loss(y, outputs, from_logits=True)

    model = make()
    settings = {"loss": {"kind": own, "price": "mse"}}
    model.compile("sgd", **settings, metrics={"kind": ["accuracy"]})
    part = {"price": LABELS["price"]}
    with pytest.raises(ValueError, match="no labels of the task 'kind', which has met"):
        model.evaluate(X, part, verbose=0)
    model = make()
    model.compile("sgd", **settings)
    found = model.evaluate(X, part, verbose=0, return_dict=True)
    assert set(found) == {"loss", "price_loss"}


def test_groups_and_rates():
    model = make("uncertainty")
    groups = kt.layer_groups(model)
    assert groups.names[-1] == "head" and len(groups) == 3
    assert len(groups["head"].variables) == 5  # two heads, and the log variances
    optimizer = kt.optimizers.discriminative(
        keras.optimizers.SGD(0.1), model, layer_decay=0.5
    )
    model.compile(optimizer, LOSSES, jit_compile=False)
    fit(model, X, LABELS)


def test_a_frozen_backbone():
    below = backbone()
    model = MultiTask(kt.backbones.FrozenBackbone(below), heads())
    model.compile("sgd", LOSSES, jit_compile=False)
    before = below.get_weights()
    fit(model, X, LABELS)
    assert_close(below.get_weights(), before)
    model = MultiTask(kt.backbones.FrozenBackbone(below), heads(), weighting="pcgrad")
    model.compile("sgd", LOSSES, jit_compile=False)
    with pytest.raises(ValueError, match="No weight of the backbone"):
        model.fit(X, LABELS, verbose=0)


def test_tokens_of_a_bert():
    below = tiny.bert(num_layers=1)
    model = MultiTask(below, heads(), dropout=0.1)
    assert len(model.idle_weights()) == 2  # the pooler
    model.compile("sgd", LOSSES, jit_compile=False)
    ids = np.arange(48).reshape(8, 6) % 60
    x = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1}
    fit(model, x, LABELS)


def dense(units=1, name=None):
    return keras.layers.Dense(units, name=name)


ONE = dense()


@pytest.mark.parametrize(
    "made, settings, error, match",
    [
        ([("a", ONE), ("a", dense())], {}, TypeError, "heads is a list"),
        ({}, {}, ValueError, "heads is empty"),
        ({"a": 3}, {}, TypeError, "head of 'a' is a int"),
        ({"": ONE}, {}, ValueError, "name of a task is ''"),
        ({"a b": ONE}, {}, ValueError, "name of a task is 'a b'"),
        ({"a": ONE, "b": ONE}, {}, ValueError, r"\['a', 'b'\] have the same layer\."),
        (
            {"a": dense(name="x"), "b": dense(name="x")},
            {},
            ValueError,
            "the same layer name",
        ),
        ({"a": ONE}, {"weighting": "sum"}, ValueError, "weighting"),
        ({"a": ONE}, {"dropout": 1.0}, ValueError, "dropout"),
        ({"a": ONE}, {"seed": -1}, ValueError, "seed"),
    ],
)
def test_refuses_to_be_made(made, settings, error, match):
    with pytest.raises(error, match=match):
        MultiTask(backbone(), made, **settings)


@pytest.mark.parametrize(
    "weighting, settings, error, match",
    [
        ("fixed", {"loss": "mse"}, TypeError, "loss is 'mse'"),
        ("fixed", {"loss": None}, TypeError, "loss is None"),
        ("fixed", {"loss": {"kind": CROSSENTROPY}}, ValueError, r"\['price'\]"),
        ("fixed", {"loss": LOSSES | {"x": "mse"}}, ValueError, r"loss has \['x'\]"),
        ("fixed", {"loss": LOSSES | {"kind": "ce"}}, ValueError, "Name it"),
        (
            "fixed",
            {"loss": LOSSES | {"price": keras.losses.MeanSquaredError("sum")}},
            ValueError,
            "reduction 'sum'",
        ),
        ("fixed", {"metrics": ["accuracy"]}, TypeError, "metrics is"),
        ("fixed", {"metrics": {"x": ["mse"]}}, ValueError, r"metrics has \['x'\]"),
        ("fixed", {"loss_weights": {"x": 1.0}}, ValueError, "loss_weights has"),
        (
            "fixed",
            {"metrics": {"kind": "mse"}, "weighted_metrics": {"kind": "mse"}},
            ValueError,
            "Both metrics",
        ),
        ("uncertainty", {"loss_weights": {"kind": 1.0}}, ValueError, "learns"),
    ],
)
def test_refuses_to_compile(weighting, settings, error, match):
    with pytest.raises(error, match=match):
        make(weighting).compile("sgd", **({"loss": LOSSES} | settings))


@pytest.mark.parametrize(
    "labels, match",
    [
        (KINDS, "The labels are ndarray"),
        ({"kind": KINDS}, r"The heads \['price'\] .* have no labels"),
        (LABELS | {"x": KINDS}, r"the tasks \['x'\], for which there is no head"),
        (LABELS | {"kind": KINDS + 1}, "2 of 8 labels of the task 'kind'"),
        (LABELS | {"kind": np.eye(3)[KINDS]}, r"'kind' have the shape \(rows, 3\)"),
        (LABELS | {"price": np.ones((8, 2))}, r"head gives \(rows, 1\)"),
    ],
)
def test_refuses_labels(labels, match):
    model = compiled()
    with pytest.raises(ValueError, match=match):
        model.fit(X, labels, verbose=0)
    if isinstance(labels, dict):
        tasks = {name: (X, each) for name, each in labels.items()}
        with pytest.raises(ValueError, match=match):
            model.fit(task_mixture(tasks), shuffle=False, verbose=0)
    assert int(array(model.optimizer.iterations)) == 0


def test_refuses_labels_that_are_not_finite():
    price = np.where(np.arange(len(X)) < 3, np.nan, LABELS["price"])
    model = compiled()
    with pytest.raises(ValueError, match="3 of 8 labels of the task 'price' are NaN"):
        model.fit(X, LABELS | {"price": price}, verbose=0)
    assert int(array(model.optimizer.iterations)) == 0


def test_refuses_validation_labels_and_weights():
    model = compiled()
    wrong = X, {"kind": KINDS + 1}
    with pytest.raises(ValueError, match="2 of 8 labels"):
        model.fit(X, LABELS, validation_data=wrong, verbose=0)
    with pytest.raises(ValueError, match="sample weights have the names"):
        model.compute_loss(X, LABELS, model(X), {"kind": OWN})
    with pytest.raises(ValueError, match="have no labels"):
        model.train_on_batch(X, {"kind": KINDS})


@pytest.mark.slow
def test_pcgrad_reloads_in_a_fresh_process(tmp_path):
    model = compiled("pcgrad", keras.optimizers.Adam(0.05))
    fit(model, X, LABELS)
    model.save(tmp_path / "model.keras")
    again = fresh.load(tmp_path / "model.keras", X)
    assert_close(again.outputs, run(model, X))
    assert_close(again.optimizer_variables, model.optimizer.variables)


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["fixed", "pcgrad"])
def test_two_replicas_with_rows_of_one_task_each(strategy, weighting):
    def trained():
        model = compiled(weighting)
        model.set_weights(conflict())
        weights = {
            "kind": np.array([1, 1, 0, 0] * 2),
            "price": np.array([0, 0, 1, 1] * 2),
        }
        history = fit(model, X, LABELS, sample_weight=weights)
        return [*model.get_weights(), *map(np.array, history.history.values())]

    values = conflict()
    one = trained()
    with strategy.scope():
        two = trained()
    assert len(values) == 8
    assert_close(two, one, 1e-5)
