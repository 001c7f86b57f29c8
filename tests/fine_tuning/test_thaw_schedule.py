"""ThawSchedule against its formula."""

import keras
import numpy as np
import pytest

from keras_transfer.fine_tuning.thaw_schedule import ThawSchedule


def rates(schedule, steps):
    return [float(schedule(step)) for step in range(steps)]


def test_it_is_constant_then_warms_up_and_falls_to_zero():
    found = rates(ThawSchedule(2.0, 10, [2], warmup_steps=4), 11)
    warm = [1, 1, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1]
    left = [1, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0]
    np.testing.assert_allclose(found, 2 * np.multiply(warm, left), atol=1e-6)


def test_it_warms_up_at_each_thaw():
    found = rates(ThawSchedule(1.0, 8, [0, 4], warmup_steps=2), 8)
    warm = [0.5, 1, 1, 1, 0.5, 1, 1, 1]
    np.testing.assert_allclose(found, warm * (1 - np.arange(8) / 8), atol=1e-6)


def test_it_is_saved_in_the_config_of_an_optimizer():
    optimizer = keras.optimizers.Adam(ThawSchedule(0.1, 9, [3], 2))
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    schedule = again.get_config()["learning_rate"]["config"]
    assert schedule == ThawSchedule(0.1, 9, [3], 2).get_config()


@pytest.mark.parametrize(
    "wrong", [(0.0, 9, [3], 2), (0.1, 0, [3], 2), (0.1, 9, [3], 0)]
)
def test_wrong_arguments_raise(wrong):
    with pytest.raises(ValueError, match="must be"):
        ThawSchedule(*wrong)
