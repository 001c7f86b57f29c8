"""abstention: the bound of the paper, cases by hand, many draws, bad input."""

import keras
import numpy as np
import pytest
from scipy.stats import binom

import keras_transfer as kt
from keras_transfer.analysis.calibration.abstention import _guaranteed
from tests.models import calibration_models


def test_the_bound_solves_the_binomial_tail():
    random = np.random.default_rng(0)
    confidences = random.uniform(0.5, 1, 500)
    wrong = random.uniform(size=500) > confidences
    threshold, bound = _guaranteed(confidences, wrong, 0.2, 0.05)
    accepted = confidences >= threshold
    mistakes, size = wrong[accepted].sum(), accepted.sum()
    tail = binom.cdf(mistakes, size, bound)
    assert tail == pytest.approx(0.05 / np.ceil(np.log2(500)))
    assert bound <= 0.2 and mistakes / size < bound


def test_a_case_by_hand():
    # Eight examples without a mistake: 3 steps, and the first one, of 4 examples, has
    # (1 - b)^4 = 0.1 / 3. For 6 and 7 examples, the bound is lower.
    confidences = np.linspace(0.6, 0.95, 8)
    threshold, bound = _guaranteed(confidences, np.zeros(8, bool), 0.6, 0.1)
    assert bound == pytest.approx(1 - (0.1 / 3) ** (1 / 7))
    assert threshold == confidences[1]


def test_the_risk_is_kept_in_most_draws():
    broken = []
    for seed in range(300):
        random = np.random.default_rng(seed)
        confidences = random.uniform(0.5, 1, 3000)
        wrong = random.uniform(size=3000) > confidences**0.25
        threshold, _ = _guaranteed(confidences, wrong, 0.065, 0.1)
        # The true risk above the threshold t: the mean of 1 - c^0.25 over (t, 1).
        t = np.linspace(threshold, 1, 2000)
        broken.append((1 - t**0.25).mean() > 0.065)
    assert np.mean(broken) <= 0.1


def test_a_model(tmp_path):
    x, y = calibration_models.drawn(count=3000)
    model = calibration_models.certain()
    found = kt.analysis.abstention(model, (x[:1500], y[:1500]), risk=0.15)
    assert found.risk < found.bound <= 0.15
    classes = found.classify(x[:1500])
    accepted = classes >= 0
    assert accepted.mean() == found.coverage
    assert (classes != y[:1500])[accepted].mean() == pytest.approx(found.risk)
    fresh = found.measure((x[1500:], y[1500:]))
    assert fresh.risk < 0.15 and fresh.coverage == pytest.approx(
        found.coverage, abs=0.1
    )
    shifted = found.measure((-x[1500:], y[1500:]))
    assert shifted.risk > 0.5
    content = found.to_dict()
    assert content["curve"][-1][0] == 1.0
    assert content["curve"][-1][1] == pytest.approx(
        (x[:1500].argmax(1) != y[:1500]).mean()
    )
    for name in ("a.html", "a.png", "a.json", "a.md", "a.txt"):
        found.save(tmp_path / name)
    assert "at most" in (tmp_path / "a.txt").read_text()
    again = kt.analysis.Abstention(content)
    assert again.threshold == found.threshold
    with pytest.raises(ValueError, match="without a model"):
        again.classify(x)


def test_two_classes_do_not_depend_on_the_temperature():
    model, (x, y) = calibration_models.one_unit()
    calibrated = kt.calibrate(model, (x, y))
    first = kt.analysis.abstention(model, (x, y), risk=0.15)
    second = kt.analysis.abstention(calibrated, (x, y), risk=0.15)
    np.testing.assert_array_equal(first.classify(x), second.classify(x))
    assert first.threshold > second.threshold


def test_no_example_is_accepted():
    x, y = calibration_models.drawn()
    found = kt.analysis.abstention(calibration_models.certain(), (x, y), risk=0.2)
    none = found.measure((np.zeros_like(x), y))
    assert none.coverage == 0 and none.risk is None


def test_bad_input():
    x, y = calibration_models.drawn()
    model = calibration_models.certain()
    abstention = kt.analysis.abstention
    with pytest.raises(
        ValueError, match="No threshold that was tried has a risk of at most 0.001"
    ):
        abstention(model, (x, y), risk=0.001)
    with pytest.raises(ValueError, match="risk=0 must be"):
        abstention(model, (x, y), risk=0)
    with pytest.raises(ValueError, match="confidence=1.5 must be"):
        abstention(model, (x, y), confidence=1.5)
    with pytest.raises(ValueError, match="of one class"):
        abstention(model, (x, np.zeros_like(y)))
    with pytest.raises(TypeError, match="not a keras.Model"):
        abstention(keras.layers.Dense(3), (x, y))
