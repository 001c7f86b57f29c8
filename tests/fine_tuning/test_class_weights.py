"""Class weights in all common forms."""

import keras
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from keras_transfer.fine_tuning.class_weights import class_weights

SPARSE = "sparse_categorical_crossentropy"
BINARY = "binary_crossentropy"
LABELS = np.array([0, 2, 1, 0, 0])
EXPECTED = {0: 1.0, 1: 9.0, 2: 0.5}


@pytest.mark.parametrize("labels", [[0, 2, 1], [[0.0], [2.0]], np.eye(3)])
def test_classes_without_a_weight_get_1(labels):
    assert class_weights({1: 9.0}, np.array(labels), None) == {0: 1.0, 1: 9.0, 2: 1.0}
    assert class_weights(None, np.array(labels), None) is None
    assert class_weights({}, np.array(labels), None) is None
    assert class_weights({1: 9}, LABELS, SPARSE, (None, 4))[3] == 1.0


@pytest.mark.parametrize(
    "weights",
    [
        {np.int64(1): np.float32(9), np.float64(2): np.float64(0.5)},
        [1, 9, 0.5],
        (1.0, 9.0, 0.5),
        np.array([1, 9, 0.5]),
        {"dog": 9, b"eel": 0.5},
    ],
    ids=["NumPy", "list", "tuple", "array", "names"],
)
def test_all_forms_give_the_same_weights(weights):
    found = class_weights(weights, LABELS, SPARSE, (None, 3), ("cat", "dog", "eel"))
    assert found == EXPECTED
    for key, value in found.items():
        assert type(key) is int and type(value) is float


def test_a_pandas_column_is_read_by_its_index():
    pandas = pytest.importorskip("pandas")
    assert class_weights(pandas.Series([1.0, 9, 0.5]), LABELS, SPARSE) == EXPECTED
    column = pandas.Series([0.5, 9.0], index=["eel", "dog"])
    names = ("cat", "dog", "eel")
    assert class_weights(column, LABELS, SPARSE, (None, 3), names) == EXPECTED


@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None] * 1.0, np.eye(3)[LABELS]])
def test_balanced_equals_scikit_learn(labels):
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    found = class_weights("balanced", labels, None, (None, 3))
    np.testing.assert_allclose([found[each] for each in range(3)], expected)


def test_balanced_weights_with_an_empty_class_and_with_booleans():
    assert class_weights("balanced", np.array([0, 0, 2, 2]), SPARSE, (None, 4)) == {
        0: 1.0,
        1: 1.0,
        2: 1.0,
        3: 1.0,
    }
    found = class_weights("balanced", np.array([True, False, False]), BINARY, (None, 1))
    assert found == {0: 0.75, 1: 1.5}


@pytest.mark.parametrize(
    "weights, message",
    [
        ("even", "a str that is not 'balanced'"),
        ([1, 2], r"it has the shape \(2,\), and there are 3 classes"),
        (2.0, "it is not a list, and there are 3 classes"),
        ({0: -1}, "-1 is not a number of 0 or more"),
        ({0: "2"}, "'2' is not a number of 0 or more"),
        ([1, np.nan, 1], "is not a number of 0 or more"),
        ([0, 0, 0], "nothing would train"),
        ({3: 1}, "the class 3, but the classes are the whole numbers 0 to 2"),
        ({0.5: 1}, "the class 0.5, but"),
        ({"cow": 1}, "the class 'cow', but the classes are cat, dog, eel"),
    ],
)
def test_wrong_weights_raise(weights, message):
    names = ("cat", "dog", "eel")
    with pytest.raises(ValueError, match=f"class_weight.*{message}"):
        class_weights(weights, LABELS, SPARSE, (None, 3), names)


@pytest.mark.parametrize(
    "labels, loss, output, message",
    [
        (np.eye(3), BINARY, (None, 3), "several yes-or-no labels"),
        (LABELS * 1.0, "mse", (None, 1), "is for numbers, not for classes"),
        (np.ones((4, 7)), SPARSE, (None, 7, 3), r"several labels, of shape \(7,\)"),
        (np.ones((4, 7, 1)), SPARSE, (None, 7, 3), r"labels, of shape \(7, 1\)"),
        ({"a": LABELS, "b": LABELS}, SPARSE, None, "several outputs"),
        (
            LABELS - 1,
            keras.losses.SparseCategoricalCrossentropy(ignore_class=-1),
            None,
            "labels are below 0: -1",
        ),
    ],
)
def test_examples_without_exactly_one_class_raise(labels, loss, output, message):
    with pytest.raises(ValueError, match=message):
        class_weights("balanced", labels, loss, output)


def test_weight_0_of_some_classes_leaves_the_others_at_1():
    found = class_weights({0: 0, 1: 0}, LABELS, SPARSE, (None, 3))
    assert found == {0: 0.0, 1: 0.0, 2: 1.0}
