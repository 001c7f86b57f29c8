"""Tests of model soups and adapter soups."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from tests.contracts.compare import array
from tests.contracts.compare import assert_close

X = np.ones((4, 1), "float32")
Y = 2 * X


def network(value):
    """Return `y = value * x`, compiled."""
    kernel = keras.initializers.Constant(value)
    dense = keras.layers.Dense(1, kernel_initializer=kernel, use_bias=False)
    model = keras.Sequential([keras.Input((1,)), dense])
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def test_a_uniform_soup_is_the_mean():
    soup = kt.models.uniform_soup([network(1.0), network(2.0), network(6.0)])
    assert_close(array(soup.weights[0]), np.array([[3.0]]), 1e-6)
    for models in ([], [network(1.0)]):
        with pytest.raises(ValueError, match="needs two or more"):
            kt.models.uniform_soup(models)


def test_a_greedy_soup_solved_by_hand():
    # Alone, the squared errors are 0.25, 49, 1 and 0.16. The best is 2.4. With 1.5 the
    # mean is 1.95, which is better. With 1.0 it is 1.63, which is worse.
    models = [network(each) for each in (1.5, 9.0, 1.0, 2.4)]
    soup = kt.models.greedy_soup(models, (X, Y))
    assert soup.ingredients == (3, 0) and soup.metric == "loss"
    assert soup.scores == pytest.approx([0.25, 49.0, 1.0, 0.16], abs=1e-5)
    assert soup.score == pytest.approx(0.0025, abs=1e-5)
    assert_close(array(soup.model.weights[0]), np.array([[1.95]]), 1e-6)
    assert_close(array(models[3].weights[0]), np.array([[2.4]]), 1e-6)
    assert "Soup of [3, 0]: loss 0.0025" in str(soup)


def test_a_metric_where_larger_is_better():
    def network_of(value):
        kernel = keras.initializers.Constant(value)
        dense = keras.layers.Dense(1, kernel_initializer=kernel, activation="sigmoid")
        model = keras.Sequential([keras.Input((1,)), dense])
        model.compile(
            "sgd", "binary_crossentropy", metrics=["accuracy"], run_eagerly=True
        )
        return model

    data = np.array([[1.0], [-1.0]]), np.array([1, 0])
    soup = kt.models.greedy_soup([network_of(-1.0), network_of(1.0)], data)
    assert soup.metric == "accuracy" and soup.scores == (0, 1) and soup.score == 1
    assert soup.ingredients == (1,)
    with pytest.raises(ValueError, match="metric='auc'"):
        kt.models.greedy_soup([network_of(0.5)] * 2, data, metric="auc")


def adapted():
    """Return `y = x` of three features with three adapters of different effect."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, use_bias=False)])
    model.layers[0].kernel.assign(np.eye(3))
    model.compile("sgd", "mse", run_eagerly=True)
    for name, size in (("small", 0.5), ("large", 8.0), ("more", 1.5)):
        kt.adapters.LoRA(rank=1, alpha=1, targets="all-linear").attach(
            model, name, verbose=0
        )
        part = _part(model, name)
        part.lora_a.assign(np.ones((3, 1)))
        part.lora_b.assign(np.full((1, 3), size))
    return model


def _part(model, name):
    from keras_transfer.adapters.adapter_part import all_parts

    return next(part for _, part in all_parts(model) if part.name == name)


def test_adapters_are_averaged_exactly():
    model = adapted()
    x = np.ones((2, 3), "float32")
    effects = []
    for name in ("small", "more"):
        kt.adapters.use(model, name)
        effects.append(array(model(x)) - x)
    soup = kt.models.adapter_soup(model, ["small", "more"])
    assert soup.model is model and np.isnan(soup.score)
    assert_close(array(model(x)) - x, np.mean(effects, axis=0), 1e-5)
    assert kt.adapters.active(model) == {"soup": 1.0}


def test_a_greedy_soup_of_adapters():
    model = adapted()
    x = np.ones((2, 3), "float32")
    kt.adapters.add_weighted(model, "right", {"small": 0.5, "more": 0.5})
    y = array(model(x))
    kt.adapters.remove(model, "right")
    kt.adapters.use(model, "large")
    names = ["small", "large", "more"]
    soup = kt.models.adapter_soup(model, names, (x, y), name="mean")
    assert set(soup.ingredients) == {"small", "more"}
    assert soup.score == pytest.approx(0, abs=1e-8) and len(soup.scores) == 3
    assert set(kt.adapters.attached(model)) == {*names, "mean"}
    assert_close(array(model(x)), y, 1e-5)


def test_an_error_leaves_the_adapters_as_they_were():
    model = adapted()
    kt.adapters.use(model, "large")
    data = np.ones((2, 3)), np.ones((2, 3))
    for names, kwargs, match in (
        (["small"], {}, "one adapter"),
        (["small", "smal"], {}, "smal"),
        (["small", "more"], {"name": "large"}, "large"),
        (["small", "more"], {"data": data, "metric": "auc"}, "metric='auc'"),
    ):
        with pytest.raises(ValueError, match=match):
            kt.models.adapter_soup(model, names, **kwargs)
        assert kt.adapters.active(model) == {"large": 1.0}
        assert set(kt.adapters.attached(model)) == {"small", "large", "more"}
