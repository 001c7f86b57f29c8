"""Kinds of data that are accepted, and how each kind is read."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.data import examples
from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import count_batches
from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import DATASET
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import PY_DATASET

X, Y = np.arange(10.0).reshape(5, 2), np.array([0, 1, 0, 1, 1])


class Batches(keras.utils.PyDataset):
    """PyDataset with batches of two examples."""

    def __init__(self, count=3):
        super().__init__()
        self.count = count

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, number):
        part = slice(2 * number, 2 * number + 2)
        return X[part], Y[part]


def dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays or (X, Y)).batch(2)


@pytest.mark.parametrize(
    "data, kind",
    [((X, Y), ARRAYS), ((X,), ARRAYS), (dataset(), DATASET), (Batches(), PY_DATASET)],
)
@pytest.mark.parametrize("x_alone", [False, True])
def test_kinds(data, kind, x_alone):
    assert kind_of(data, x_alone=x_alone) == kind


@pytest.mark.parametrize("data", [X, {"a": X}, [X], ["a", "b"], tf.constant(X)])
def test_x_alone_accepts_any_structure_of_arrays(data):
    assert kind_of(data, x_alone=True) == ARRAYS
    with pytest.raises(TypeError, match=r"`data` is a .*tuple of arrays \(x, y\)"):
        kind_of(data)


@pytest.mark.parametrize("x_alone", [False, True])
@pytest.mark.parametrize(
    "make, once",
    [
        (lambda: iter([X]), True),
        (lambda: iter(dataset()), True),
        (lambda: (each for each in X), True),
        (lambda: None, False),
        (lambda: dataset, False),
    ],
)
def test_other_types_raise(make, once, x_alone):
    with pytest.raises(TypeError) as raised:
        kind_of(make(), "target", x_alone=x_alone)
    message = str(raised.value)
    assert message.startswith(f"`target` is a {type(make()).__name__}")
    assert ("allows only one pass" in message) == once
    assert ("(x, y)" in message) != x_alone
    assert message.endswith("a tf.data.Dataset, or a keras.utils.PyDataset.")


def test_the_error_suggests_a_py_dataset_only_if_accepted():
    with pytest.raises(TypeError, match="arrays .*, or a tf.data.Dataset.$") as raised:
        kind_of(Batches(), py_dataset=False)
    assert "PyDataset" not in str(raised.value).removeprefix("`data` is a Batches")


@pytest.mark.parametrize(
    "data, count",
    [
        (dataset(), 3),
        (dataset().take(0), 0),
        (dataset().repeat(), math.inf),
        (dataset().filter(lambda *_: True), None),
        (Batches(), 3),
        (Batches(0), 0),
        (Batches(None), math.inf),
    ],
)
def test_the_number_of_batches(data, count):
    assert count_batches(data) == count


@pytest.mark.parametrize(
    "data", [dataset(), Batches(), dataset().filter(lambda *_: True)]
)
def test_a_pass_returns_all_batches_in_order(data):
    for _ in range(2):
        found = [np.asarray(y).tolist() for _, y in examples.batches_of(data)]
        assert found == [[0, 1], [0, 1], [1]]


@pytest.mark.parametrize(
    "data, message",
    [
        (dataset().repeat(), r"`source` has no end.* source.take\(number\)"),
        (Batches(None), "`source` has no end.*num_batches is None"),
        (dataset().take(0), "`source` is empty"),
        (Batches(0), "`source` is empty"),
    ],
)
def test_empty_and_infinite_data_raise(data, message):
    with pytest.raises(ValueError, match=message):
        examples.batches_of(data, "source")


def test_single_examples_are_detected_from_shapes_or_inputs():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    vectors = tf.data.Dataset.from_tensor_slices(X)
    examples.check_batched(vectors, "target")
    with pytest.raises(ValueError, match=r"`target` is not batched.*target.batch\(32"):
        examples.check_batched(vectors, "target", model)
    with pytest.raises(ValueError, match="`data` is not batched"):
        examples.check_batched(dataset().unbatch())
    examples.check_batched(dataset(), model=model)


def test_labels_of_none_have_no_shape_to_check():
    examples.check_batched(dataset(X).map(lambda x: (x, None)))


@pytest.mark.parametrize("arrays", [X, (X, Y), {"a": X, "b": [*range(5)]}, (X, None)])
def test_the_number_of_examples(arrays):
    assert count_rows(arrays) == 5


@pytest.mark.parametrize(
    "arrays, error, message",
    [
        ((X, Y[:3]), ValueError, r"arrays of `source` have \[3, 5\] examples"),
        (X[:0], ValueError, "`source` is empty"),
        ((X, 3), TypeError, "not an array of examples"),
    ],
)
def test_arrays_that_do_not_fit_raise(arrays, error, message):
    with pytest.raises(error, match=message):
        count_rows(arrays, "source")


def test_rows_of_strings_are_tensors_and_rows_of_numbers_are_arrays():
    arrays = {"text": np.array(["a", "b", "c"]), "number": [1, 2, 3]}
    found = examples.rows_of(arrays, slice(1, 3))
    assert isinstance(found["text"], tf.Tensor)
    assert found["text"].numpy().tolist() == [b"b", b"c"]
    assert isinstance(found["number"], np.ndarray)
    assert found["number"].tolist() == [2, 3]


def kinds(data):
    """Return the dtype and shape of each array in the data."""
    return examples.map_arrays(lambda array: (array.dtype.kind, array.shape), data)


@pytest.mark.parametrize(
    "data, found",
    [
        ([np.int64(1), np.int64(2)], ("i", (2,))),
        ([np.str_("a"), np.str_("b")], ("U", (2,))),
        ([np.bool_(True), False], ("b", (2,))),
        ([tf.constant(1), tf.constant(2)], ("i", (2,))),
        ([[1.0, 2.0], [3.0, 4.0]], ("f", (2, 2))),
        ([np.ones(3), np.ones(3)], [("f", (3,)), ("f", (3,))]),
        (np.array([1, True, 2.5], object), ("f", (3,))),
        (np.array(["a", "b"], object), ("O", (2,))),
    ],
)
def test_lists_and_arrays_of_objects(data, found):
    assert kinds(data) == found


@pytest.mark.parametrize(
    "data, error, message",
    [
        ([[1], [2, 3]], TypeError, "a list with rows of different lengths.*ragged"),
        (np.array(["a", None], object), ValueError, r"1 of 2 values .* are missing"),
        (["a", float("nan")], ValueError, "1 of 2 values in a list .* are missing"),
        (["a", 1], TypeError, "a list of int, str that is not an array"),
        (np.array([1, "a"], object), TypeError, r"a ndarray of int, str .*dict\(table"),
    ],
)
def test_objects_that_are_not_an_array_raise(data, error, message):
    with pytest.raises(error, match=message):
        kinds(data)


def test_a_list_of_arrays_counts_as_several_inputs():
    with pytest.raises(ValueError, match=r"\[2, 5\] examples.*by np.stack"):
        count_rows((list(X), Y))


def test_columns_and_tables_of_pandas():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(
        {"a": [1, 2, 3], "b": [True, False, True], "c": [0.5, 1.5, 2.5]},
        index=[7, 5, 3],
    )
    assert kinds(table) == ("f", (3, 3))
    assert kinds(dict(table)) == {"a": ("i", (3,)), "b": ("b", (3,)), "c": ("f", (3,))}
    assert kinds(table["a"].astype("Int64")) == ("i", (3,))
    for dtype in (object, "string", "category"):
        words = pandas.Series(["x", "y", "x"], dtype=dtype)
        assert examples.map_arrays(list, words) == ["x", "y", "x"]
    gap = pandas.Series(["x", None, "y"], dtype="string")
    with pytest.raises(ValueError, match="1 of 3 values in a Series"):
        kinds(gap)
    with pytest.raises(TypeError, match=r"a DataFrame of .*dict\(table\)"):
        kinds(table.assign(d=["x", "y", "z"]))
