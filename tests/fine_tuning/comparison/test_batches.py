"""Batches of a test part: enough of them, and the same examples however they come."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.fine_tuning.comparison.batches import Batches
from keras_transfer.fine_tuning.comparison.overlap import content_of
from keras_transfer.fine_tuning.inputs import checked_inputs
from keras_transfer.fine_tuning.pilot.scores import GROUPS

X = np.random.default_rng(0).normal(size=(70, 4)).astype("float32")
Y = np.arange(70) % 2


def batches_of(test):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=False)
    return Batches(checked_inputs(model, (X, Y), test, None))


@pytest.mark.parametrize("size", [1, 7, 32, 70])
def test_a_dataset_has_enough_groups_however_it_is_batched(size):
    batches = batches_of(tf.data.Dataset.from_tensor_slices((X, Y)).batch(size))
    found = list(batches)
    assert len(batches) == 70 and GROUPS <= len(found) <= 70
    np.testing.assert_array_equal(np.concatenate([x for x, _ in found]), X)
    assert content_of(batches) == content_of(batches_of((X, Y)))


def test_arrays_are_in_random_groups_always_the_same():
    order = np.argsort(Y, kind="stable")
    one, two = (list(batches_of((X[order], Y[order]))) for _ in range(2))
    assert len(one) == GROUPS and max(len(x) for x, _ in one) == 3
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(one, two, strict=True))
    assert len({int(y.sum()) for _, y in one}) > 2  # not sorted by class
    assert len(list(batches_of((X[:3], Y[:3])))) == 3


def test_the_content_is_that_of_the_examples():
    assert content_of(batches_of((X[::-1], Y[::-1]))) == content_of(batches_of((X, Y)))
    assert content_of(batches_of((X + 1, Y))) != content_of(batches_of((X, Y)))
    assert content_of(batches_of((X, 1 - Y))) != content_of(batches_of((X, Y)))
