"""The slanted triangular schedule of ULMFiT and the warm-up schedule of BERT."""

import math

import keras
import numpy as np
import pytest

from keras_transfer.optimizers import LinearWarmupDecay
from keras_transfer.optimizers import SlantedTriangular
from tests.contracts.schedule_contract import ScheduleContract


def slanted(t, peak, total, cut_fraction, ratio):
    """Return equation 3 of arXiv 1801.06146 as printed."""
    cut = math.floor(total * cut_fraction)
    p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_fraction - 1))
    return peak * (1 + p * (ratio - 1)) / ratio


class TestSlantedTriangular(ScheduleContract):
    def make(self):
        return SlantedTriangular(0.01, self.steps, cut_fraction=0.25, ratio=8)

    def expected(self, step):
        return slanted(step, 0.01, self.steps, 0.25, 8)


class TestLinearWarmupDecay(ScheduleContract):
    def make(self):
        return LinearWarmupDecay(0.01, self.steps, warmup_fraction=0.25)

    def expected(self, step):
        return float(np.interp(step, [0, 5, self.steps], [0, 0.01, 0]))


def test_slanted_values_computed_by_hand():
    # T = 100: cut = 10. p is 0, 1/2, 1, 1/2, 0 at 0, 5, 10, 55, 100.
    schedule = SlantedTriangular(0.32, 100)
    rates = [float(schedule(t)) for t in (0, 5, 10, 55, 100)]
    np.testing.assert_allclose(rates, [0.01, 0.165, 0.32, 0.165, 0.01], rtol=1e-6)


def test_slanted_is_never_negative():
    # T = 105: cut = 10, so the fall of 90 steps ends at 100, five steps early.
    assert slanted(104, 1.0, 105, 0.1, 32) < 0
    schedule = SlantedTriangular(1.0, 105)
    for step in (100, 104, 105, 10_000):
        assert float(schedule(step)) == pytest.approx(1 / 32)


def test_slanted_with_too_few_steps_for_a_rise_starts_at_the_peak():
    # T = 5: cut = 0, so the paper's formula would divide by zero.
    schedule = SlantedTriangular(0.32, 5)
    rates = [float(schedule(t)) for t in range(6)]
    np.testing.assert_allclose(rates, np.linspace(0.32, 0.01, 6), rtol=1e-6)
    assert float(SlantedTriangular(0.32, 5, cut_fraction=0)(0)) == pytest.approx(0.32)


def test_slanted_with_cut_fraction_1_only_rises():
    schedule = SlantedTriangular(0.32, 10, cut_fraction=1)
    assert float(schedule(9)) == pytest.approx(0.289)
    assert float(schedule(10)) == pytest.approx(0.32)
    assert math.isfinite(float(schedule(11)))


def test_slanted_with_ratio_1_is_constant():
    schedule = SlantedTriangular(0.5, 10, ratio=1)
    assert [float(schedule(t)) for t in (0, 3, 10)] == [0.5] * 3


def test_rounding_of_fractions_loses_no_step():
    assert 0.29 * 100 < 29
    assert float(SlantedTriangular(1.0, 100, cut_fraction=0.29)(29)) == 1.0
    assert float(SlantedTriangular(1.0, 100, cut_fraction=0.29)(28)) < 1.0


def test_warmup_values_computed_by_hand():
    schedule = LinearWarmupDecay(1.0, 10, warmup_steps=4)
    rates = [float(schedule(t)) for t in (0, 1, 4, 7, 10, 11)]
    np.testing.assert_allclose(rates, [0, 0.25, 1, 0.5, 0, 0], atol=1e-7)


def test_warmup_steps_replace_the_fraction():
    by_steps = LinearWarmupDecay(1.0, 10, warmup_steps=4, warmup_fraction=0.9)
    by_fraction = LinearWarmupDecay(1.0, 10, warmup_fraction=0.4)
    for t in range(11):
        assert float(by_steps(t)) == float(by_fraction(t))


def test_without_warmup_equals_polynomial_decay():
    schedule = LinearWarmupDecay(1.0, 10, warmup_steps=0)
    stock = keras.optimizers.schedules.PolynomialDecay(1.0, 10, 0.0)
    for t in range(12):
        assert float(schedule(t)) == pytest.approx(float(stock(t)), abs=1e-7)


def test_with_warmup_in_all_steps_only_rises():
    schedule = LinearWarmupDecay(1.0, 10, warmup_steps=10)
    assert [float(schedule(t)) for t in (0, 5)] == [0, 0.5]
    assert math.isfinite(float(schedule(10)))


@pytest.mark.parametrize("kind", [SlantedTriangular, LinearWarmupDecay])
@pytest.mark.parametrize(
    "rate, steps", [(0, 10), (-1, 10), (math.nan, 10), (math.inf, 10), (1, 0), (1, 2.5)]
)
def test_wrong_rates_and_steps_raise(kind, rate, steps):
    with pytest.raises(ValueError, match="peak_learning_rate|total_steps"):
        kind(rate, steps)


@pytest.mark.parametrize(
    "kind, settings",
    [
        (SlantedTriangular, dict(cut_fraction=1.1)),
        (SlantedTriangular, dict(cut_fraction=math.nan)),
        (SlantedTriangular, dict(ratio=0.5)),
        (SlantedTriangular, dict(ratio=math.inf)),
        (LinearWarmupDecay, dict(warmup_fraction=-0.1)),
        (LinearWarmupDecay, dict(warmup_steps=-1)),
        (LinearWarmupDecay, dict(warmup_steps=11)),
    ],
)
def test_wrong_settings_raise(kind, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        kind(1.0, 10, **settings)
