"""Shares of tasks in a mixture, and the order of an epoch."""

import numpy as np

from keras_transfer.data.task_rates import task_counts
from keras_transfer.data.task_rates import task_rates
from keras_transfer.data.task_rates import TaskOrder


def test_rates_by_hand():
    np.testing.assert_allclose(task_rates([100, 900], 1.0), [0.1, 0.9])
    np.testing.assert_allclose(task_rates([100, 900], 2.0), [0.25, 0.75])
    np.testing.assert_allclose(task_rates([100, 900], 1.0, limit=300), [0.25, 0.75])


def test_a_high_temperature_is_even_and_a_low_one_takes_the_largest():
    np.testing.assert_allclose(task_rates([1, 10**6], 1e9), [0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(task_rates([10, 10**6], 1e-3), [0, 1], atol=1e-6)


def test_counts_sum_to_the_total_by_largest_remainders():
    counts = task_counts(np.array([0.5, 0.26, 0.24]), 10)
    assert counts.tolist() == [5, 3, 2]
    assert task_counts(np.full(3, 1 / 3), 10).sum() == 10


def test_a_task_goes_through_all_examples_before_one_returns():
    order = TaskOrder([5, 2], [3, 3], seed=1)
    epochs = [order.epoch(number) for number in range(5)]
    for epoch in epochs:
        assert np.bincount(epoch[:, 0]).tolist() == [3, 3]
    first = np.concatenate([np.sort(rows[rows[:, 0] == 0, 1]) for rows in epochs])
    assert np.bincount(first).tolist() == [3] * 5
    second = np.concatenate([rows[rows[:, 0] == 1, 1] for rows in epochs[:2]])
    assert np.bincount(second).tolist() == [3, 3]


def test_a_seed_gives_the_same_epochs_and_each_epoch_another_order():
    one, same = TaskOrder([50], [50], 3), TaskOrder([50], [50], 3)
    np.testing.assert_array_equal(one.epoch(2), same.epoch(2))
    assert (one.epoch(0) != one.epoch(1)).any()
    assert (one.epoch(0) != TaskOrder([50], [50], 4).epoch(0)).any()
