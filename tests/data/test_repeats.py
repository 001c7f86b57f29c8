"""Datasets told apart: in one order, in another each time, and augmented."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.data.repeats import same_order


def dataset(count=20):
    x = np.arange(count, dtype="float32")[:, None]
    return tf.data.Dataset.from_tensor_slices((x, np.arange(count)))


def noisy(x, y):
    return x + tf.random.uniform((1,)), y


def rarely_noisy(x, y):
    return tf.where(tf.random.uniform(()) < 0.2, -x, x), y


def ragged(x, y):
    return tf.fill((y % 3,), x[0]), y


def lucky(x, y):
    return tf.random.uniform(()) < 0.7


def words(x, y):
    return tf.strings.as_string(x), {"label": y}


@pytest.mark.parametrize(
    "make, same",
    [
        (lambda data: data.batch(6), True),
        (lambda data: data.map(words).batch(6), True),
        (lambda data: data.shuffle(20, reshuffle_each_iteration=False).batch(6), True),
        (lambda data: data.filter(lambda x, y: y > 2).batch(6), True),
        (lambda data: data.shuffle(20).batch(6), False),
        (lambda data: data.shuffle(20, seed=1).batch(6), False),
        (lambda data: data.batch(6).shuffle(9), False),
        (lambda data: data.map(words).shuffle(20).batch(6), False),
    ],
)
def test_order_is_told(make, same):
    # Under a global seed two iterators are alike, though two epochs are not.
    keras.utils.set_random_seed(0)
    assert same_order(make(dataset())) is same


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda data: data.map(noisy).batch(6), "other examples"),
        (lambda data: data.map(rarely_noisy).batch(2), "other examples"),
        (lambda data: data.shuffle(20).map(noisy).batch(6), "other examples"),
        (lambda data: data.shuffle(20).batch(6, drop_remainder=True), "other examples"),
        (lambda data: data.filter(lucky).batch(4), "other examples"),
        (lambda data: data.map(ragged).ragged_batch(6), "ragged or sparse"),
    ],
)
def test_examples_that_change_are_refused(make, message):
    keras.utils.set_random_seed(0)
    with pytest.raises(ValueError, match=message):
        same_order(make(dataset()))
