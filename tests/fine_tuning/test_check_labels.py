"""Labels that a loss accepts, and labels that raise an error."""

import keras
import ml_dtypes
import numpy as np
import pytest

from keras_transfer.fine_tuning.check_labels import check_labels

losses = keras.losses
sparse = losses.SparseCategoricalCrossentropy(from_logits=True)
binary = losses.BinaryCrossentropy(from_logits=True)
whole = np.array([0, 1, 2, 1, 0, 2])
one_hot = np.eye(3)[whole]
many = np.array([[0, 1, 1], [1, 0, 1]] * 3)


@pytest.mark.parametrize(
    "loss, classes, labels",
    [
        (sparse, 3, whole),
        ("sparse_categorical_crossentropy", 3, whole[:, None].astype("float32")),
        (sparse, 3, whole.astype(ml_dtypes.bfloat16)),
        (["sparse_categorical_crossentropy"], 3, {"logits": whole}),
        (losses.CategoricalCrossentropy(), 3, one_hot),
        ("categorical_crossentropy", 3, 0.9 * one_hot + 0.05),
        (losses.CategoricalFocalCrossentropy, 3, one_hot),
        (binary, 1, whole > 0),
        ("binary_crossentropy", 1, [[0.0], [0.2], [1.0]]),
        (binary, 3, many),
        (losses.BinaryFocalCrossentropy(), 3, many),
        ("mse", 1, np.linspace(-9, 9, 6)),
        ("mse", 1, np.ones(6)),
        ("hinge", 1, [-1, 1]),
        (lambda y, x: x, 3, np.array([7, 8])),
        (None, 3, np.array([7, 8])),
        ({"a": sparse, "b": "mse"}, 3, {"a": whole, "b": -1.0 * whole}),
    ],
)
def test_correct_labels_pass(loss, classes, labels):
    labels = (
        keras.tree.map_structure(np.asarray, labels)
        if isinstance(labels, dict)
        else np.asarray(labels)
    )
    check_labels(loss, (None, classes), labels)
    check_labels(loss, (None, classes), labels, learned=False)


def test_labels_of_tokens_and_pixels_pass():
    tokens = np.array([[0, 1, 2], [2, 1, -1]])
    loss = losses.SparseCategoricalCrossentropy(ignore_class=-1)
    check_labels(loss, (None, 3, 3), tokens)
    check_labels(loss, (None, None, 3), tokens[..., None])
    check_labels("categorical_crossentropy", (None, None, 3), np.eye(3)[tokens])
    check_labels(binary, (None, None, 1), many[..., None])
    with pytest.raises(ValueError, match="outside 0 to 2: -1"):
        check_labels(sparse, (None, 3, 3), tokens)


def test_labels_of_a_large_vocabulary_can_lack_words():
    tokens = np.array([[0, 7, 7], [2, 1, 3]])
    check_labels(sparse, (None, 3, 30_000), tokens)
    with pytest.raises(ValueError, match="outside 0 to 29999: 30000"):
        check_labels(sparse, (None, 3, 30_000), tokens + 29_997)


def test_with_an_unknown_output_only_the_numbers_are_checked():
    check_labels(sparse, None, whole + 9)
    with pytest.raises(ValueError, match="NaN"):
        check_labels(sparse, None, whole * np.nan)


@pytest.mark.parametrize(
    "loss, classes, labels, message",
    [
        (sparse, 2, whole, "2 of 6 labels are outside 0 to 1: 2"),
        (sparse, 3, whole - 1, "outside 0 to 2: -1"),
        (sparse, 9, whole, "6 label.s. for 9 classes"),
        (sparse, 3, 0 * whole, "of one class, 0"),
        (sparse, 3, whole + 0.5, "not whole numbers"),
        (sparse, 3, one_hot, "argmax"),
        (sparse, 1, whole, "num_classes=1"),
        ({"logits": sparse}, 2, whole, "outside 0 to 1"),
        ("mse", 1, whole * np.nan, "6 of 6 labels are NaN"),
        ("mse", 1, np.array([np.inf, 1]), "1 of 2 labels are NaN or infinite"),
        ("mse", 1, np.array([np.nan, 1], ml_dtypes.bfloat16), "1 of 2 labels are NaN"),
        ("mse", 1, np.array(["good", "bad"]), "not numbers but <U4: good, bad"),
        ({"a": "mse", "b": "mse"}, 1, {"a": whole, "b": whole * np.nan}, "NaN"),
        ("categorical_crossentropy", 3, whole, "sparse_categorical_crossentropy"),
        ("categorical_crossentropy", 3, one_hot[:, :2], "one-hot labels"),
        ("categorical_crossentropy", 3, one_hot[[0, 0, 0]], "of one class, 0"),
        (binary, 1, whole, r"2 of 6 labels are outside \[0, 1\], .*: 2"),
        (binary, 1, np.ones(6), "All 6 labels are 1.0"),
        (binary, 3, np.zeros((2, 3)), "All 6 labels are 0.0"),
        (binary, 3, whole, "several classes at once"),
        (binary, 2, many, "several classes at once"),
    ],
)
def test_wrong_labels_raise(loss, classes, labels, message):
    with pytest.raises(ValueError, match=message):
        check_labels(loss, (None, classes), labels)


def test_for_validation_labels_only_the_range_is_checked():
    for good in (whole[:1], 0 * whole):
        check_labels(sparse, (None, 9), good, learned=False)
        check_labels(binary, (None, 1), 0 * good, learned=False)
    with pytest.raises(ValueError, match="2 of 6 labels are outside 0 to 1: 2"):
        check_labels(sparse, (None, 2), whole, learned=False)
    with pytest.raises(ValueError, match="outside"):
        check_labels(binary, (None, 1), whole, learned=False)


def test_a_class_without_labels_warns():
    with pytest.warns(UserWarning, match="1 of 4 classes have no label: 3"):
        check_labels(sparse, (None, 4), whole)
