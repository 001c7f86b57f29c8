"""Read the labels of a dataset in one pass, and check them before training."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer._arguments import whole_number
from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import batches_of
from keras_transfer.data.examples import check_batched
from keras_transfer.data.examples import check_dense
from keras_transfer.data.examples import check_finite
from keras_transfer.data.examples import DATASET
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import map_arrays

SHOWN = 5  # number of values in an error message


def read_labels(data: Any) -> Any:
    """Return all labels of `data` in the order of one pass.

    The pass also computes the inputs, so it takes as long as in an epoch. If a dataset
    is shuffled again in each pass, the next pass has another order.

    Args:
        data: A tuple of arrays `(x, y)` or `(x, y, sample_weight)`, a batched
            `tf.data.Dataset` of such tuples, or a `keras.utils.PyDataset`.

    Returns:
        An array, or a structure of arrays if `y` is a structure.

    Raises:
        TypeError: If `data` is an iterator or of an unknown kind, or its labels
            are ragged or sparse.
        ValueError: If `data` has no labels, is empty, not batched, or infinite.
    """
    kind = kind_of(data)
    if kind == ARRAYS:
        labels = _as_arrays(labels_of(data))
    elif kind == DATASET:
        labels = _joined(_of_dataset(data))
    else:
        labels = _joined([_as_arrays(labels_of(each)) for each in batches_of(data)])
    if any(len(each) == 0 for each in keras.tree.flatten(labels)):
        raise ValueError("`data` is empty. Pass at least one label.")
    return labels


def labels_of(element: Any) -> Any:
    """Return the y of `(x, y)` or `(x, y, sample_weight)`: arrays, tensors or specs.

    Raises:
        ValueError: If `element` is not such a tuple, or y is None.
    """
    if not isinstance(element, tuple) or len(element) not in (2, 3):
        what = type(element).__name__
        if isinstance(element, tuple):
            what = f"tuple of {len(element)}"
        raise ValueError(
            f"`data` has no labels, because it contains a {what}. Pass (x, y) or "
            "(x, y, sample_weight)."
        )
    if not [each for each in keras.tree.flatten(element[1]) if each is not None]:
        raise ValueError(
            "`data` has no labels, because y is None. Pass (x, y) or "
            "(x, y, sample_weight)."
        )
    return element[1]


def check_classes(labels: np.ndarray, num_classes: int) -> None:
    """Check that class labels fit a model with `num_classes` classes.

    A class without examples gives a UserWarning, because training still works.

    Args:
        labels: Array of shape `(count,)` or `(count, 1)`, of integers or of floats that
            are whole numbers.
        num_classes: Integer of 2 or more, the number of classes of the model.

    Raises:
        ValueError: If labels are not whole numbers from 0 to `num_classes - 1`, are
            fewer than the classes, or are all of one class.
    """
    why = "a classifier needs at least two classes"
    whole_number("num_classes", num_classes, 2, why=why)
    classes = f"0 to {num_classes - 1}"
    labels = whole_numbers(labels, classes)
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.size:
        raise ValueError(
            f"{outside.size} of {labels.size} labels are outside {classes}: "
            f"{listed(np.unique(outside))}. The model has {num_classes} classes. "
            "Number the classes from 0, or build the model with more classes."
        )
    if labels.size < num_classes:
        raise ValueError(
            f"`data` has {labels.size} label(s) for {num_classes} classes. Pass at "
            "least one label for each class."
        )
    counts = np.bincount(labels, minlength=num_classes)
    if np.count_nonzero(counts) == 1:
        raise ValueError(
            f"All {labels.size} labels are of one class, {labels[0]}. Training needs "
            "at least two classes. Check whether `data` is a part of data that is "
            "sorted by class."
        )
    missing = np.flatnonzero(counts == 0)
    if missing.size:
        warnings.warn(
            f"{missing.size} of {num_classes} classes have no label: "
            f"{listed(missing)}. The model cannot learn these classes.",
            UserWarning,
            stacklevel=3,
        )


def whole_numbers(labels: Any, expected: str) -> np.ndarray:
    """Return labels of shape `(count,)` or `(count, 1)` as int64 of shape `(count,)`.

    Raises:
        ValueError: If the shape differs, or a label is not a whole number.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(
            f"The labels have shape {labels.shape}. Pass one whole number for each "
            f"example, {expected}. If the labels are one-hot, pass labels.argmax(-1)."
        )
    if labels.dtype.kind not in "biufV":  # bfloat16 is of kind "V"
        raise ValueError(
            f"The labels are not numbers but {labels.dtype}: {listed(labels)}. Number "
            f"the classes, {expected}."
        )
    numbers = labels.astype("float64")
    nan = np.count_nonzero(np.isnan(numbers))
    if nan:
        raise ValueError(
            f"{nan} of {labels.size} labels are NaN. Remove the examples without a "
            "label."
        )
    # A float64 is exact up to 2**53. The limit also excludes infinity.
    wrong = labels[(numbers != np.trunc(numbers)) | (np.abs(numbers) > 2**53)]
    if wrong.size:
        raise ValueError(
            f"{wrong.size} of {labels.size} labels are not whole numbers: "
            f"{listed(np.unique(wrong))}. Pass class labels as whole numbers, "
            f"{expected}."
        )
    return labels.astype("int64")


def choose_per_class(
    labels: np.ndarray, labels_per_class: int, seed: int
) -> np.ndarray:
    """Return a boolean array that selects `labels_per_class` examples of each class.

    The seed gives each class an order, and the first examples are selected. With the
    same seed, a larger selection therefore contains each smaller selection.
    """
    chosen = np.zeros(len(labels), bool)
    rng = np.random.default_rng(seed)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        chosen[rng.permutation(of_class)[:labels_per_class]] = True
    return chosen


def listed(values: Any) -> str:
    """Return the first values as text, and the number of other values."""
    values = list(values)
    shown = ", ".join(str(each) for each in values[:SHOWN])
    return shown + (f" and {len(values) - SHOWN} more" if len(values) > SHOWN else "")


def _as_arrays(labels: Any) -> Any:
    return map_arrays(lambda array: array, labels)


def _of_dataset(data: tf.data.Dataset) -> list:
    check_dense(labels_of(data.element_spec))
    check_batched(data)
    check_finite(data)
    return list(data.map(lambda *element: element[1]).as_numpy_iterator())


def _joined(batches: list) -> Any:
    if not batches:
        raise ValueError("`data` is empty. Pass at least one batch.")
    return keras.tree.map_structure(lambda *each: np.concatenate(each), *batches)
