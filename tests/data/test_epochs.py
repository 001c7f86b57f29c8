"""Epochs shuffles arrays by seed and epoch, and same_order compares passes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.data.epochs import batch_sizes
from keras_transfer.data.epochs import Epochs
from keras_transfer.data.epochs import same_order


def numbers(count=10):
    x = np.arange(count)[:, None].astype("float32")
    return x, np.arange(count), np.arange(count) / 2


def rows(dataset):
    return [batch[1].tolist() for batch in dataset.as_numpy_iterator()]


def test_the_order_depends_on_seed_and_epoch():
    epochs = Epochs(numbers(), 4, seed=7)
    dataset = epochs.dataset
    for epoch in (0, 3):
        epochs.clock.on_epoch_begin(epoch)
        order = np.random.default_rng((7, epoch)).permutation(10)
        assert sum(rows(dataset), []) == order.tolist()


def test_the_last_batch_can_be_smaller_and_the_length_is_known():
    epochs = Epochs(numbers(), 4, seed=0)
    for dataset in (epochs.dataset, epochs.in_order):
        assert [len(each) for each in rows(dataset)] == [4, 4, 2]
        assert int(dataset.cardinality()) == epochs.batches == 3
    assert Epochs(numbers(), 99, seed=0).batches == 1


def test_without_a_seed_the_order_is_kept():
    epochs = Epochs(numbers(), 4, seed=None)
    epochs.clock.on_epoch_begin(1)
    assert sum(rows(epochs.dataset), []) == list(range(10))
    assert rows(epochs.in_order) == rows(epochs.dataset)


def test_all_parts_stay_together():
    for x, y, weight in Epochs(numbers(), 3, seed=1).dataset.as_numpy_iterator():
        assert x[:, 0].tolist() == y.tolist() == (2 * weight).tolist()


@pytest.mark.parametrize(
    "x",
    [
        ["a", "b", "c"],
        np.array(["a", "b", "c"], object),
        {"one": np.ones((3, 2)), "two": [1, 2, 3]},
        [np.ones((3, 2)), np.ones(3, "int32")],
        (["a", "b", "c"], ["d", "e", "f"]),
        np.ones((3, 2), "float16"),
    ],
)
def test_inputs_of_all_kinds(x):
    (batch, y) = next(Epochs((x, [0, 1, 2]), 2, seed=0).dataset.as_numpy_iterator())
    assert all(len(each) == 2 for each in keras.tree.flatten(batch))
    assert y.shape == (2,)


def test_fit_gets_a_different_order_in_each_epoch():
    seen = []

    class Look(keras.Model):
        def train_step(self, data):
            seen.extend(data[1].numpy().tolist())
            return super().train_step(data)

    inputs = keras.Input((1,))
    model = Look(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse", run_eagerly=True)
    epochs = Epochs(numbers(5), 2, seed=3)
    model.fit(
        epochs.dataset, epochs=2, callbacks=[epochs.clock], shuffle=False, verbose=0
    )
    orders = [np.random.default_rng((3, epoch)).permutation(5) for epoch in (0, 1)]
    assert seen[-10:] == np.concatenate(orders).tolist()


# Datasets with a fixed order, with a new order in each pass, and with augmentation.


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
def test_same_order(make, same):
    # With a global seed, two iterators are equal although two epochs differ.
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
def test_examples_that_change_raise(make, message):
    keras.utils.set_random_seed(0)
    with pytest.raises(ValueError, match=message):
        same_order(make(dataset()))


@pytest.mark.parametrize(
    "examples, batch_size, replicas, sizes",
    [
        (33, 16, 1, [16, 16, 1]),
        (33, 16, 2, [16, 14, 3]),
        (34, 16, 2, [16, 16, 2]),
        (37, 16, 4, [16, 8, 13]),
        (16, 16, 4, [16]),
        (5, 4, 2, [2, 3]),
        (1, 16, 2, [1]),
        (6, 2, 4, [2, 2, 2]),
    ],
)
def test_the_last_batch_reaches_all_replicas(examples, batch_size, replicas, sizes):
    assert batch_sizes(examples, batch_size, replicas) == sizes
    made = Epochs((np.arange(examples),), batch_size, 0, replicas=replicas)
    found = [batch[0] for batch in made.dataset.as_numpy_iterator()]
    assert [len(each) for each in found] == sizes and made.batches == len(sizes)
    assert sorted(np.concatenate(found)) == list(range(examples))
