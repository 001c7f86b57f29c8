"""learning_curve: nested subsets, the power law, and what it cannot tell."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_transfer as kt
from keras_transfer.fine_tuning.comparison import one_run
from keras_transfer.fine_tuning.comparison.curve import curve_of
from keras_transfer.fine_tuning.comparison.power_law import PowerLaw
from keras_transfer.fine_tuning.comparison.results import Result
from keras_transfer.fine_tuning.comparison.subsets import checked_sizes
from keras_transfer.fine_tuning.comparison.subsets import nested_order
from keras_transfer.fine_tuning.pilot.scores import Score

RNG = np.random.default_rng(0)
X = RNG.normal(size=(360, 10)).astype("float32")
Y = (X @ RNG.normal(size=(10, 3)) + RNG.normal(size=(360, 3))).argmax(1)
TRAIN, TEST = (X[:160], Y[:160]), (X[160:], Y[160:])


def build(pretrained):
    backbone = keras.Sequential([keras.Input((10,)), layers.Dense(10, name="low")])
    backbone.set_weights([np.eye(10), np.zeros(10)])
    model = kt.models.TransferClassifier(backbone, num_classes=3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.AdamW(1e-3), loss, metrics=["accuracy"], jit_compile=False
    )
    return model


def curve(data=TRAIN, test=TEST, **kwargs):
    settings = dict(strategy="probe", seeds=2, epochs=1, verbose=0)
    return kt.learning_curve(build, data, test=test, **settings | kwargs)


SIZES = np.array([25, 50, 100, 200, 400])


def test_a_power_law_is_found_again():
    losses = 0.1 + 2.0 * SIZES**-0.5
    law = PowerLaw(SIZES, losses, np.full(5, 1e-3), least=0.0)
    expected = losses[-1] - (0.1 + 2.0 * 800**-0.5)
    found = law.forecast(800)
    assert found.gain == pytest.approx(expected, rel=0.05)
    assert found.low < expected < found.high
    np.testing.assert_allclose(law.losses(SIZES), losses, atol=1e-3)


@pytest.mark.slow
def test_the_interval_contains_the_truth_about_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    losses = 0.1 + 2.0 * SIZES**-0.5
    expected = losses[-1] - (0.1 + 2.0 * 800**-0.5)
    for _ in range(50):
        drawn = losses + rng.normal(0, 0.01, size=5)
        found = PowerLaw(SIZES, drawn, np.full(5, 0.01), least=0.0).forecast(800)
        hits += found.low < expected < found.high
    assert hits >= 40


def test_a_law_never_falls_below_the_least_loss():
    losses = np.array([0.4, 0.3, 0.2, 0.1, 0.01])
    law = PowerLaw(SIZES, losses, np.full(5, 1e-3), least=0.0)
    assert law.losses(np.array([1e9]))[0] >= -1e-9
    assert PowerLaw(SIZES, losses, np.full(5, 1e-3), None).losses([1e9])[0] < 0


def test_subsets_are_nested_and_have_every_class():
    classes = np.repeat([0, 1, 2], [60, 30, 10])
    order = nested_order(classes, 100, seed=0)
    assert sorted(order) == list(range(100))
    assert set(classes[order[:3]]) == {0, 1, 2}
    assert np.abs(np.bincount(classes[order[:50]]) - [30, 15, 5]).max() <= 1
    assert not np.array_equal(order, nested_order(classes, 100, seed=1))
    assert sorted(nested_order(None, 7, 0)) == list(range(7))


def test_default_sizes_are_halves_of_the_data():
    assert checked_sizes(None, 1000, 4) == [62, 125, 250, 500, 1000]
    assert checked_sizes(None, 100, 10) == [25, 50, 100]
    assert checked_sizes(None, 5, 2) == [5]


@pytest.mark.slow
def test_the_curve_rises_and_has_a_forecast(tmp_path):
    found = curve(seeds=2, directory=tmp_path / "kept")
    rows = found.to_dict()["rows"]
    assert [row["size"] for row in rows] == [10, 20, 40, 80, 160]
    means = [np.mean(row["values"]) for row in rows]
    assert means[-1] > means[0] + 0.1
    assert [each["size"] for each in found.forecasts] == [320, 640]
    for each in found.forecasts:
        assert each["low"] <= each["high"] and abs(each["change"]) < 0.3
    text = str(found)
    assert "320 labels would change the accuracy by +0." in text
    for name in ("curve.html", "curve.md", "curve.json"):
        found.save(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 100
    assert len(found.plot(tmp_path / "curve.png").axes[0].lines) >= 2
    again = curve(seeds=2, directory=tmp_path / "kept")
    assert again.to_dict() == found.to_dict()


@pytest.mark.slow
def test_datasets_and_the_same_size_by_hand():
    """The largest size is the training on all data."""
    data = tf.data.Dataset.from_tensor_slices(TRAIN).batch(9)
    found = curve(data, sizes=(20, 160), seeds=1)
    keras.utils.set_random_seed(0)
    model = build(True)
    kt.fine_tune(model, TRAIN, strategy="probe", epochs=1, verbose=0)
    accuracy = model.evaluate(*TEST, verbose=0)[1]
    assert found.to_dict()["rows"][1]["values"] == [pytest.approx(accuracy)]
    assert "2 sizes are too few" in str(found) and found.forecasts == []


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"sizes": (20, 161)}, "has 161, but the data have 160 examples"),
        ({"sizes": (2, 20)}, "has 2, but there are 3 classes"),
        ({"sizes": (20, 20)}, "must be different numbers"),
        ({"sizes": ()}, "must be different numbers"),
        ({"sizes": (0.5, 20)}, "sizes=0.5"),
        ({"strategy": "best"}, "strategy='best'"),
        ({"strategy": "lora"}, "'lora' is not possible"),
        ({"seeds": 0}, "seeds=0"),
        ({"test": None}, "test=None"),
        ({"strategy": "scratch"}, "ignore `pretrained`"),
        ({"data": tf.data.Dataset.from_tensor_slices(TRAIN)}, "not batched|batch"),
    ],
)
def test_bad_input_raises_before_any_training(kwargs, match, monkeypatch):
    monkeypatch.setattr(one_run, "fine_tune", None)
    with pytest.raises(ValueError, match=match):
        curve(**kwargs)


def results(losses, metric="loss"):
    """Return results for each size, from losses `(sizes, seeds)`."""
    return {
        int(size): [
            Result(Score([-x, -x], [x, x], [1, 1], metric, False), 1.0, 1, "probe")
            for x in runs
        ]
        for size, runs in zip(SIZES, losses, strict=True)
    }


def test_a_loss_may_be_negative():
    """As a likelihood or a cosine similarity."""
    losses = (-0.9 + 0.5 * SIZES**-0.5)[:, None] + [[-1e-5, 0, 1e-5]]
    found = curve_of(results(losses), "probe", [])
    expected = 0.5 * (800**-0.5 - 400**-0.5)
    assert found.forecasts[0]["change"] == pytest.approx(expected, rel=0.1)


@pytest.mark.slow
def test_intervals_of_two_runs_contain_the_truth_about_as_often_as_they_say():
    hits = 0
    for seed in range(30):
        noise = np.random.default_rng(seed).normal(0, 0.02, size=(5, 2))
        losses = (0.1 + 2 * SIZES**-0.5)[:, None] + noise
        first = curve_of(results(losses), "probe", []).forecasts[0]
        expected = 2 * (800**-0.5 - 400**-0.5)
        hits += first["low"] < expected < first["high"]
    assert hits >= 25


def test_one_seed_has_no_forecast():
    found = curve_of(results(np.ones((5, 1))), "probe", [])
    assert found.forecasts == [] and "one seed does not show" in str(found)


def test_a_run_that_diverged_is_named(tmp_path):
    losses = np.ones((5, 2))
    losses[1, 0] = np.nan
    found = curve_of(results(losses), "probe", [])
    assert "not finite" in str(found) and found.forecasts == []
    found.save(tmp_path / "curve.html")
    assert found.plot() is not None
