"""The schedules of Ganin et al. 2016: reversal strength and learning rate."""

import math

import keras
import numpy as np
import pytest

from keras_transfer.optimizers import GaninDecay
from keras_transfer.optimizers import GaninRampUp
from tests.contracts.schedule_contract import ScheduleContract


class TestGaninRampUp(ScheduleContract):
    def make(self):
        return GaninRampUp(self.steps, gamma=4.0, end=0.05)

    def expected(self, step):
        return 0.05 * (2 / (1 + math.exp(-4.0 * step / self.steps)) - 1)


class TestGaninDecay(ScheduleContract):
    def make(self):
        return GaninDecay(0.01, self.steps, alpha=5.0, beta=0.5)

    def expected(self, step):
        return 0.01 / (1 + 5.0 * step / self.steps) ** 0.5


def test_ramp_up_values_computed_by_hand():
    # p = 0, 1/2, 1: tanh(0), tanh(2.5), tanh(5).
    schedule = GaninRampUp(100)
    values = [float(schedule(t)) for t in (0, 50, 100, 101)]
    expected = [0.0, 0.98661430, 0.99990920, 0.99990920]
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert float(GaninRampUp(100, end=0.3)(50)) == pytest.approx(0.3 * 0.98661430)


def test_ramp_up_is_precise_in_the_first_steps():
    # At p = 1e-7 the strength is gamma * p / 2. The paper's formula subtracts 1 from a
    # number close to 1, and float32 has only seven digits.
    assert float(GaninRampUp(10_000_000)(1)) == pytest.approx(5e-7, rel=1e-6)
    one = np.float32(1)
    printed = np.float32(2) / (one + np.exp(np.float32(-1e-6))) - one
    assert float(printed) != pytest.approx(5e-7, rel=1e-2)


def test_ramp_up_with_end_0_never_rises():
    assert [float(GaninRampUp(10, end=0)(t)) for t in (0, 5, 10)] == [0.0] * 3


def test_a_steep_rise_is_a_step_without_nan():
    schedule = GaninRampUp(10, gamma=1e6)
    assert [float(schedule(t)) for t in (0, 1, 10)] == [0.0, 1.0, 1.0]


def test_decay_values_computed_by_hand():
    # p = 0, 1/2, 1: 6 ** 0.75 = 3.8337, 11 ** 0.75 = 6.0401.
    schedule = GaninDecay(1.0, 10)
    rates = [float(schedule(t)) for t in (0, 5, 10, 11)]
    expected = [1.0, 0.26084743, 0.16556002, 0.16556002]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_decay_without_a_fall_is_constant():
    for schedule in (GaninDecay(0.5, 10, alpha=0), GaninDecay(0.5, 10, beta=0)):
        assert [float(schedule(t)) for t in (0, 3, 10)] == [0.5] * 3


def test_decay_with_power_1_equals_inverse_time_decay():
    schedule = GaninDecay(0.1, 10, alpha=3.0, beta=1.0)
    stock = keras.optimizers.schedules.InverseTimeDecay(0.1, 10, 3.0)
    for t in range(11):
        assert float(schedule(t)) == pytest.approx(float(stock(t)), rel=1e-6)


@pytest.mark.parametrize("steps", [0, -1, 2.5, math.nan, math.inf, True, "10", None])
@pytest.mark.parametrize("make", [GaninRampUp, lambda steps: GaninDecay(0.1, steps)])
def test_wrong_steps_raise(make, steps):
    with pytest.raises(ValueError, match="total_steps"):
        make(steps)


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, None, "1"])
@pytest.mark.parametrize(
    "make, name",
    [
        (lambda value: GaninRampUp(10, gamma=value), "gamma"),
        (lambda value: GaninRampUp(10, end=value), "end"),
        (lambda value: GaninDecay(value, 10), "initial_learning_rate"),
        (lambda value: GaninDecay(0.1, 10, alpha=value), "alpha"),
        (lambda value: GaninDecay(0.1, 10, beta=value), "beta"),
    ],
)
def test_wrong_settings_raise(make, name, value):
    with pytest.raises(ValueError, match=name):
        make(value)


def test_zero_raises_if_it_would_stop_training():
    with pytest.raises(ValueError, match="gamma"):
        GaninRampUp(10, gamma=0)
    with pytest.raises(ValueError, match="initial_learning_rate"):
        GaninDecay(0, 10)
