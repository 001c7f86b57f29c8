"""Forgetting: its table against counts by hand, and wrong data."""

import json

import keras
import numpy as np
import pytest

import keras_transfer as kt
from tests import tiny
from tests.contracts.callback_contract import CallbackContract

Forgetting = kt.analysis.Forgetting
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def task(seed, count=12):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 6)).astype("float32"), np.arange(count) % 3


def constant():
    """Return a model whose prediction is the largest bias, without training."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    model.layers[0].kernel.assign(np.zeros((6, 3)))
    model.compile(keras.optimizers.SGD(0.0), SPARSE, run_eagerly=True)
    return model


def shares(*counts):
    """Return a task with these counts of the classes 0, 1, 2."""
    y = np.repeat(np.arange(len(counts)), counts)
    return np.zeros((len(y), 6), "float32"), y


def learn(model, forgetting, winner):
    class Assign(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.layers[-1].bias.assign(np.eye(3)[winner])

    model.fit(*task(0), verbose=0, callbacks=[forgetting, Assign()])


class TestForgetting(CallbackContract):
    epochs = 3

    def make_model(self, **settings):
        model = tiny.mlp()
        settings = dict(jit_compile=False) | settings
        model.compile(keras.optimizers.Adam(0.01), SPARSE, **settings)
        return model

    def make_callbacks(self, model):
        return [Forgetting({"old": task(1), "new": task(2)})]

    def data(self):
        return task(0, 16)


DATA = {"a": shares(3, 1), "b": shares(1, 2, 1), "c": shares(1, 1, 8)}


def test_the_table_and_both_transfers_are_those_of_the_paper():
    model, forgetting = constant(), Forgetting(DATA)
    assert forgetting.average_accuracy is None
    model.layers[0].bias.assign([0, 0, 1])
    for winner in (0, 1, 2):
        learn(model, forgetting, winner)
    expected = [[0, 0.25, 0.8], [0.75, 0.25, 0.1], [0.25, 0.5, 0.1], [0, 0.25, 0.8]]
    np.testing.assert_allclose(forgetting.accuracies, expected)
    assert forgetting.average_accuracy == pytest.approx((0 + 0.25 + 0.8) / 3)
    assert forgetting.backward_transfer == pytest.approx((-0.75 - 0.25) / 2)
    assert forgetting.forward_transfer == pytest.approx((0.0 - 0.7) / 2)
    result = json.loads(json.dumps(forgetting.to_dict()))
    assert result["accuracies"]["b"] == {"a": 0.25, "b": 0.5, "c": 0.1}
    again = Forgetting(DATA)
    again.restore(result)
    assert str(again) == str(forgetting)
    assert str(again).splitlines() == [
        "after      a      b      c",
        "--------------------------",
        "start  0.000  0.250  0.800",
        "a      0.750  0.250  0.100",
        "b      0.250  0.500  0.100",
        "c      0.000  0.250  0.800",
        "average accuracy: 0.350",
        "backward transfer: -0.500",
        "forward transfer: -0.350",
    ]
    with pytest.raises(ValueError, match="have been learned"):
        learn(model, forgetting, 0)
    with pytest.raises(ValueError, match="same tasks"):
        Forgetting({"a": DATA["a"]}).restore(result)


def test_a_task_that_was_learned_before_and_a_model_of_its_own():
    model, old = constant(), constant()
    old.layers[0].bias.assign([1, 0, 0])
    forgetting = Forgetting({"a": DATA["a"]}, tasks=["new"], models={"a": old})
    learn(model, forgetting, 1)
    assert forgetting.accuracies.tolist() == [[0.75], [0.75]]
    assert forgetting.backward_transfer == 0.0
    assert forgetting.forward_transfer is None
    assert "forward transfer: not defined" in str(forgetting)


def test_the_report_shows_the_table():
    model, forgetting = constant(), Forgetting({"<a>": DATA["a"], "b": DATA["b"]})
    learn(model, forgetting, 0)
    report = kt.report(model, model.history)
    assert report.to_dict()["forgetting"] == forgetting.to_dict()
    assert "Average accuracy: 0.750." in str(report)
    assert "<th>&lt;a&gt;</th>" in report.to_html()
    learn(model, forgetting, 1)
    assert "Backward transfer: -0.500." in str(kt.report(model, model.history))


def test_two_classes_from_one_output():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.layers[0].kernel.assign([[1.0]])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss)
    x = np.array([[-2.0], [-0.1], [0.1], [2.0]])
    forgetting = Forgetting({"a": (x, np.array([0, 1, 1, 1]))})
    model.fit(x, np.array([0, 1, 1, 1]), callbacks=[forgetting], verbose=0)
    assert forgetting.accuracies.tolist() == [[0.75], [0.75]]


def test_wrong_data():
    cases = [
        (lambda: Forgetting({}), "not a dict with at least one"),
        (lambda: Forgetting([task(0)]), "not a dict"),
        (lambda: Forgetting({"a": task(0)[0]}), "labels"),
        (lambda: Forgetting({"a": task(0, 0)}), "empty"),
        (lambda: Forgetting(DATA, tasks=["a", "a"]), "different names"),
        (lambda: Forgetting(DATA, models={"d": constant()}), "data has only"),
        (
            lambda: learn(constant(), Forgetting({"a": shares(1, 1, 1, 1)}), 0),
            "outside 0 to 2",
        ),
    ]
    for call, message in cases:
        with pytest.raises((TypeError, ValueError), match=message):
            call()
