"""read_labels returns all labels in order, and check_classes finds bad labels."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.data import digits
from keras_transfer.data.labels import check_classes
from keras_transfer.data.labels import choose_per_class
from keras_transfer.data.labels import read_labels

X = np.zeros((5, 2), "float32")
Y = np.array([3, 1, 4, 1, 5])


def dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays)


class Batches(keras.utils.PyDataset):
    """PyDataset with batches of two. The last batch has one example."""

    def __init__(self, *arrays, count=3):
        super().__init__()
        self.arrays, self.count = arrays, count

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, number):
        rows = slice(2 * number, 2 * number + 2)
        return keras.tree.map_structure(lambda each: each[rows], self.arrays)


@pytest.mark.parametrize(
    "data",
    [
        (X, Y),
        (X, Y, np.ones(5)),
        (X, Y.tolist()),
        (X, tf.constant(Y)),
        ({"a": X}, Y, None),
        dataset(X, Y).batch(2),
        dataset(X, Y, np.ones(5)).batch(2),
        dataset({"a": X}, Y).batch(2).filter(lambda *_: True),  # unknown length
        dataset(X, Y).batch(5, drop_remainder=True),
        Batches(X, Y),
        Batches(X, Y, np.ones(5)),
    ],
    ids=lambda data: type(data).__name__,
)
def test_all_labels_are_returned_in_order(data):
    labels = read_labels(data)
    assert isinstance(labels, np.ndarray)
    assert labels.tolist() == Y.tolist()


@pytest.mark.parametrize("kind", [tuple, Batches, dataset])
def test_a_structure_of_labels_is_kept(kind):
    y = {"class": Y, "box": np.arange(10.0).reshape(5, 2)}
    data = {
        tuple: lambda: (X, y),
        Batches: lambda: Batches(X, y),
        dataset: lambda: dataset(X, y).batch(2),
    }[kind]()
    labels = read_labels(data)
    assert sorted(labels) == ["box", "class"]
    np.testing.assert_array_equal(labels["class"], Y)
    np.testing.assert_array_equal(labels["box"], y["box"])


def test_labels_can_be_strings():
    names = np.array(["b", "a", "b", "a", "c"], object)
    assert read_labels((X, names)).tolist() == names.tolist()
    read = read_labels(dataset(X, names).batch(2))
    assert [each.decode() for each in read] == names.tolist()


def test_data_can_be_read_again():
    data = dataset(X, Y).batch(2)
    read_labels(data)
    assert read_labels(data).tolist() == Y.tolist()


@pytest.mark.parametrize(
    "data, message",
    [
        ((X,), "no labels, because it contains a tuple of 1"),
        ((X, None), "no labels, because y is None"),
        ((X, Y, Y, Y), "tuple of 4"),
        (dataset(X).batch(2).map(lambda x: x), "no labels"),
        (Batches(X), "no labels"),
        ((X[:0], Y[:0]), "empty"),
        (dataset(X, Y).batch(2).take(0), "empty"),
        (dataset(X, Y).batch(2).filter(lambda *_: False), "empty"),
        (Batches(X, Y, count=0), "empty"),
        (dataset(X, Y).batch(2).repeat(), "no end.*Leave out its repeat"),
        (Batches(X, Y, count=None), "num_batches is None"),
        (dataset(X, Y), r"not batched.*data.batch\(32\)"),
    ],
)
def test_data_without_usable_labels_raise(data, message):
    with pytest.raises(ValueError, match=message):
        read_labels(data)


@pytest.mark.parametrize(
    "data, message",
    [
        (iter([(X, Y)]), "list_iterator, which allows only one pass"),
        ((each for each in [(X, Y)]), "generator, which allows only one pass"),
        (iter(dataset(X, Y).batch(2)), "only one pass"),
        ([X, Y], "`data` is a list"),
        (X, "`data` is a ndarray"),
        ((X, 3), "not an array of examples"),
    ],
)
def test_other_types_raise(data, message):
    with pytest.raises(TypeError, match=message):
        read_labels(data)


def test_ragged_labels_raise():
    ragged = tf.ragged.constant([[1], [1, 2], [], [3], [4]])
    with pytest.raises(TypeError, match="not an array of examples"):
        read_labels((X, ragged))
    with pytest.raises(TypeError, match="must be dense tensors"):
        read_labels(dataset(X, ragged).batch(2))


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1, 2, 0],
        [[0], [1], [2]],
        [0.0, 1.0, 2.0],
        np.array([0, 1, 2], "uint8"),
        tf.cast([0, 1, 2], "bfloat16").numpy(),
    ],
)
def test_valid_classes_pass(labels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_classes(np.array(labels), 3)


def test_booleans_are_two_classes():
    check_classes(np.array([True, False]), 2)


@pytest.mark.parametrize(
    "labels, message",
    [
        ([0, 1, 2, 3, 3], r"2 of 5 labels are outside 0 to 2: 3\. .* 3 classes"),
        ([0, -1, 9, 2], "2 of 4 labels are outside 0 to 2: -1, 9"),
        (list(range(20)), "3, 4, 5, 6, 7 and 12 more"),
        ([0, 0.5, 1, 2], "1 of 4 labels are not whole numbers: 0.5"),
        ([0, 1, 2, np.inf], "not whole numbers: inf"),
        ([0, 1, 2, 1e30], r"not whole numbers: 1e\+30"),
        ([0, 1, np.nan, 2], "1 of 4 labels are NaN"),
        ([1, 1, 1, 1], "All 4 labels are of one class, 1"),
        ([0, 2], r"2 label\(s\) for 3 classes"),
        (np.eye(3), "one-hot"),
        (["a", "b", "c"], "not numbers but <U1: a, b, c"),
        (np.array(["0", "1", "2"], object), "not numbers"),
    ],
)
def test_bad_classes_raise(labels, message):
    with pytest.raises(ValueError, match=message):
        check_classes(np.array(labels), 3)


@pytest.mark.parametrize("count", [1, 0, 2.0, None])
def test_bad_num_classes_raises(count):
    with pytest.raises(ValueError, match="num_classes=.* 2 or more"):
        check_classes(np.array([0, 1]), count)


def test_missing_classes_warn():
    with pytest.warns(UserWarning, match="2 of 4 classes have no label: 1, 3"):
        check_classes(np.array([0, 2, 2, 0]), 4)


def test_smaller_selections_are_part_of_larger_ones():
    labels = np.random.default_rng(0).integers(3, size=90)
    few, more = (choose_per_class(labels, count, seed=4) for count in (2, 9))
    assert np.bincount(labels[few]).tolist() == [2, 2, 2]
    assert np.bincount(labels[more]).tolist() == [9, 9, 9]
    assert not (few & ~more).any()


def test_the_selection_of_digits_never_changes():
    # This loop is from the first release. Published results depend on its selection.
    everything = digits.load_target(labels_per_class=40).train
    for count, seed in ((10, 0), (3, 7)):
        rng = np.random.default_rng(seed)
        chosen = np.zeros(400, bool)
        for label in range(10):
            of_class = np.flatnonzero(everything[1] == label)
            chosen[rng.permutation(of_class)[:count]] = True
        images, labels = digits.load_target(labels_per_class=count, seed=seed).train
        np.testing.assert_array_equal(images, everything[0][chosen])
        np.testing.assert_array_equal(labels, everything[1][chosen])
