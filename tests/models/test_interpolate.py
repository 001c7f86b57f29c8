"""Tests of models between a start and a fine-tuned model."""

import json
import math

import keras
import numpy as np
import pytest

import keras_transfer as kt
from tests.contracts.compare import array
from tests.contracts.compare import assert_close

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = np.arange(16) % 2


def network(seed=0, norm=False, **kwargs):
    """Return a small compiled classifier, with weights that depend on the seed."""
    layers = [keras.Input((4,)), keras.layers.Dense(3, activation="relu")]
    layers += [keras.layers.BatchNormalization()] * norm
    model = keras.Sequential([*layers, keras.layers.Dense(2)], **kwargs)
    rng = np.random.default_rng(seed)
    model.set_weights([abs(rng.normal(size=w.shape)) for w in model.weights])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"], run_eagerly=True)
    return model


def test_weights_lie_between():
    a, b = network(1), network(2)
    before = [each.get_weights() for each in (a, b)]
    for weight in (0, 0.25, 1):
        found = kt.models.interpolate(a, b, weight)
        for mixed, x, y in zip(found.get_weights(), *before, strict=True):
            assert_close(mixed, (1 - weight) * x + weight * y, 1e-6)
    assert_close(array(found(X)), array(b(X)), 0)
    for model, values in zip((a, b), before, strict=True):
        for value, kept in zip(model.get_weights(), values, strict=True):
            assert_close(value, kept, 0)
    from_list = kt.models.interpolate(before[0], b, 0.5)
    assert_close(array(from_list(X)), array(kt.models.interpolate(a, b)(X)), 0)


def test_the_result_is_compiled_and_a_model_of_its_own():
    a, b = network(1), network(2)
    found = kt.models.interpolate(a, b)
    logs = found.evaluate(X, Y, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "accuracy"}
    kernel = array(b.weights[0])
    found.fit(X, Y, verbose=0)
    assert_close(array(b.weights[0]), kernel, 0)
    assert (array(found.weights[0]) != kernel).any()


def test_statistics_of_batch_norm():
    a, b = network(1, norm=True), network(2, norm=True)
    with pytest.raises(ValueError, match="1 BatchNormalization layers .* batch_norm_d"):
        kt.models.interpolate(a, b)
    found = kt.models.interpolate(a, b, batch_norm_data=X)
    hidden = array(found.layers[0](X))
    norm = found.layers[1]
    assert_close(array(norm.moving_mean), hidden.mean(0), 1e-5)
    assert_close(array(norm.moving_variance), hidden.var(0), 1e-5)
    found = kt.models.interpolate(a, b, batch_norm_data="average")
    means = [array(each.layers[1].moving_mean) for each in (a, b)]
    assert_close(array(found.layers[1].moving_mean), np.mean(means, axis=0), 1e-6)


def test_frozen_statistics_stay():
    a, b = network(1, norm=True), network(2, norm=True)
    for name in ("moving_mean", "moving_variance"):
        getattr(b.layers[1], name).assign(getattr(a.layers[1], name))
    found = kt.models.interpolate(a, b)
    assert_close(array(found.layers[1].moving_mean), array(a.layers[1].moving_mean), 0)
    with pytest.raises(ValueError, match="has nothing to change"):
        kt.models.interpolate(a, b, batch_norm_data=X)


def test_bad_models_raise():
    a, b = network(1), network(2)
    wide = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    other.add(keras.layers.ReLU())
    not_finite = network(1)
    not_finite.weights[0].assign(np.full((4, 3), np.nan))
    for start, match in (
        (wide, "other layers"),
        (other, "ReLU instead of Dense"),
        (wide.get_weights(), "other shapes"),
        (keras.Sequential([keras.layers.Dense(2)]), "is not built"),
        (not_finite, "not finite"),
    ):
        with pytest.raises(ValueError, match=match):
            kt.models.interpolate(start, b)
    with pytest.raises(TypeError, match="a list"):
        kt.models.interpolate(a, b.get_weights())
    for weight in (-0.1, 1.1, math.nan, "half"):
        with pytest.raises(ValueError, match="weight"):
            kt.models.interpolate(a, b, weight)
    with pytest.raises(ValueError, match="batch_norm_data='mean'"):
        kt.models.interpolate(a, b, batch_norm_data="mean")
    kt.adapters.LoRA(rank=1, targets="all-linear").attach(a, verbose=0)
    with pytest.raises(ValueError, match="kt.adapters.merge"):
        kt.models.interpolate(a, b)
    kt.adapters.merge(a)
    kt.models.interpolate(a, b)


class Counted(keras.layers.Dense):
    """A Dense with a weight of whole numbers."""

    def build(self, input_shape):
        super().build(input_shape)
        self.count = self.add_weight(
            shape=(1,), dtype="int32", initializer="zeros", trainable=False
        )


def test_whole_numbers_that_differ_raise():
    def model(count):
        found = keras.Sequential([keras.Input((2,)), Counted(1)])
        found.layers[0].count.assign([count])
        return found

    kt.models.interpolate(model(2).get_weights(), model(2))

    with pytest.raises(ValueError, match="holds whole numbers"):
        kt.models.interpolate(model(1).get_weights(), model(2))


def test_the_curve_has_the_scores_of_each_weight(tmp_path):
    a, b = network(1), network(2)
    domains = {"all": (X, Y), "half": (X[:8], Y[:8])}
    curve = kt.models.interpolation_curve(a, b, domains, weights=[0, 0.5, 1])
    content = json.loads(curve.to_json())
    assert content["metric"] == "accuracy" and content["weights"] == [0, 0.5, 1]
    for name, data in domains.items():
        for place, model in enumerate((a, kt.models.interpolate(a, b), b)):
            logs = model.evaluate(*data, verbose=0, return_dict=True)
            assert content["scores"][name][place] == pytest.approx(logs["accuracy"])
    assert "weight" in str(curve) and "half" in str(curve)
    for suffix in ("html", "md", "json", "txt"):
        curve.save(tmp_path / f"curve.{suffix}")
    curve.plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert "image/svg" in curve.to_html()


def test_the_best_weight():
    content = {"metric": "loss", "larger": False, "weights": [0.0, 0.5, 1.0]}
    content["scores"] = {"old": [0.1, 0.3, None], "new": [0.9, 0.2, 0.2]}
    curve = kt.models.InterpolationCurve(content)
    assert curve.best("old") == 0 and curve.best("new") == 1 and curve.best() == 0.5
    assert "not finite" in str(curve)
    with pytest.raises(ValueError, match="'nw' is unknown"):
        curve.best("nw")


def test_bad_input_of_the_curve():
    a, b = network(1), network(2)
    curve = kt.models.interpolation_curve
    with pytest.raises(TypeError, match="domains is a tuple"):
        curve(a, b, (X, Y))
    with pytest.raises(ValueError, match="`domains` is empty"):
        curve(a, b, {})
    with pytest.raises(ValueError, match=r"weights\[1\]"):
        curve(a, b, {"new": (X, Y)}, weights=[0, 2])
    with pytest.raises(ValueError, match="metric='auc'.*accuracy"):
        curve(a, b, {"new": (X, Y)}, metric="auc")
    with pytest.raises(TypeError, match=r"domains\['new'\]"):
        curve(a, b, {"new": iter([(X, Y)])})
    b.compiled = False
    with pytest.raises(ValueError, match="not compiled"):
        curve(a, b, {"new": (X, Y)})
