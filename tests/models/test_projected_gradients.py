"""PCGrad against algorithm 1 of Yu et al. (2020) in NumPy."""

import keras
import numpy as np
import pytest

from keras_transfer.models.projected_gradients import projected_sum
from keras_transfer.models.projected_gradients import projections


def algorithm_1(gradients, order):
    """Return the projected gradients, computed from the vectors themselves."""
    found = []
    for i, gradient in enumerate(gradients):
        mine = gradient.copy()
        for j in order[i]:
            product = mine @ gradients[j]
            if j != i and product < 0:
                mine -= product / (gradients[j] @ gradients[j]) * gradients[j]
        found.append(mine)
    return np.array(found)


def orders(draw, tasks):
    return np.array([draw.permutation(tasks) for _ in range(tasks)])


def test_two_tasks_by_hand():
    # (1, 0) and (-1, 1): the product is -1. The first loses -1/2 of the second and is
    # (1/2, 1/2), the second loses -1 of the first and is (0, 1).
    gradients = np.array([[1.0, 0.0], [-1.0, 1.0]], "float32")
    order = np.array([[0, 1], [1, 0]])
    (found,) = projected_sum([keras.ops.convert_to_tensor(gradients)], order)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), [0.5, 1.5])
    found = keras.ops.convert_to_numpy(projections(gradients @ gradients.T, order))
    np.testing.assert_allclose(found @ gradients, [[0.5, 0.5], [0.0, 1.0]])


def test_gradients_that_agree_are_summed():
    gradients = np.array([[1.0, 0.0], [1.0, 1.0]], "float32")
    (found,) = projected_sum(
        [keras.ops.convert_to_tensor(gradients)], np.eye(2, dtype=int)
    )
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), [2.0, 1.0])


@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_the_oracle_with_several_weights(tasks):
    draw = np.random.default_rng(tasks)
    conflicts = 0
    for _ in range(10):
        parts = [draw.normal(size=(tasks, 2, 3)), draw.normal(size=(tasks, 2))]
        parts = [each.astype("float32") for each in parts]
        order = orders(draw, tasks)
        flat = np.concatenate([each.reshape(tasks, -1) for each in parts], axis=1)
        expected = algorithm_1(flat.astype("float64"), order)
        conflicts += (np.abs(expected - flat) > 1e-3).any()
        found = projected_sum(list(map(keras.ops.convert_to_tensor, parts)), order)
        found = np.concatenate([keras.ops.convert_to_numpy(x).ravel() for x in found])
        np.testing.assert_allclose(found, expected.sum(0), rtol=0, atol=1e-4)
    assert conflicts


def test_a_task_without_a_gradient_changes_nothing():
    gradients = np.array([[1.0, -2.0], [0.0, 0.0]], "float32")
    (found,) = projected_sum(
        [keras.ops.convert_to_tensor(gradients)], np.eye(2, dtype=int)
    )
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), [1.0, -2.0])
