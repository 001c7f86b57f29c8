"""replay: exact shares, all examples, the seed, and wrong data."""

import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt

OLD = np.arange(10, dtype="float32")[:, None], np.zeros(10, "int32")
NEW = 100 + np.arange(7, dtype="float32")[:, None], np.ones(7, "int32")


def rows(data):
    """Return the x and the y of each batch."""
    return [(x[:, 0].tolist(), y.tolist()) for x, y in data.as_numpy_iterator()]


def test_each_batch_has_the_share_and_an_epoch_is_one_pass_over_new():
    data = kt.data.replay(NEW, OLD, share=0.25, batch_size=4)
    batches = rows(data)
    assert len(data) == len(batches) == 3
    assert [sum(y) for _, y in batches] == [3, 3, 3]
    assert all(
        (np.array(x) >= 100).tolist() == np.equal(y, 1).tolist() for x, y in batches
    )
    new = [value for x, _ in batches for value in x if value >= 100]
    assert set(new[:7]) == set(NEW[0][:, 0])  # the last batch begins the next pass


def test_old_examples_are_all_used_before_one_returns():
    data = kt.data.replay(NEW, OLD, share=0.5, batch_size=10, steps=2)
    old = [value for x, _ in rows(data) for value in x if value < 100]
    assert sorted(old) == OLD[0][:, 0].tolist()


def test_old_rows_are_spread_over_the_batch():
    data = kt.data.replay(NEW, OLD, share=0.5, batch_size=4)
    for _, y in rows(data):
        assert sum(y[:2]) == sum(y[2:]) == 1  # each of two replicas gets both


def test_orders_depend_on_the_seed_and_differ_between_epochs():
    data, same, other = (
        kt.data.replay(NEW, OLD, batch_size=8, seed=seed) for seed in (0, 0, 1)
    )
    first, second = rows(data), rows(data)
    assert first == rows(same)
    assert first != second and first != rows(other)


def test_datasets_and_structures():
    def made(arrays):
        x, y = arrays
        return tf.data.Dataset.from_tensor_slices(({"x": x}, y, np.ones(len(y))))

    data = kt.data.replay(made(NEW), made(OLD), share=0.25, batch_size=4)
    x, y, weight = next(iter(data))
    assert x["x"].shape == (4, 1) and int(sum(y)) == 3 and weight.shape == (4,)


@pytest.mark.parametrize(
    "new, old, settings, message",
    [
        (NEW, OLD, {"share": 0.3}, "share=0.28125 or 0.3125"),
        (NEW, OLD, {"share": 1.0}, "below 1"),
        (NEW, OLD, {"share": 0.1, "batch_size": 2}, "share=0.5"),
        (NEW, OLD, {"seed": -1}, "seed=-1"),
        (NEW, (OLD[0][:, :0], OLD[1]), {}, "must be the same"),
        (NEW, (OLD[0],), {}, "no labels"),
        (NEW, (OLD[0][:0], OLD[1][:0]), {}, "empty"),
        (NEW, OLD[0], {}, "is a ndarray|no labels"),
        (NEW, tf.data.Dataset.from_tensor_slices(OLD).batch(2), {}, "already batched"),
        (tf.data.Dataset.from_tensor_slices(NEW).repeat(), OLD, {}, "no end"),
    ],
)
def test_wrong_data(new, old, settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        kt.data.replay(new, old, **settings)
