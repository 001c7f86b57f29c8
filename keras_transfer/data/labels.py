"""The labels of a data set: read in one pass, and checked before training."""

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

SHOWN = 5  # values that an error message names


def read_labels(data: Any) -> Any:
    """Return all labels of `data` in the order of one pass.

    The pass reads the inputs too, so a data set that makes them costs as much as
    in an epoch. One that shuffles anew in each pass has another order in the next.

    Args:
        data: A tuple of arrays `(x, y)` or `(x, y, sample_weight)`, a batched
            `tf.data.Dataset` of such tuples, or a `keras.utils.PyDataset`.

    Returns:
        One array, or a structure of arrays where `y` is one.

    Raises:
        TypeError: If `data` is an iterator or of an unknown kind, or its labels
            are ragged or sparse.
        ValueError: If it has no labels, is empty, not batched, or has no end.
    """
    kind = kind_of(data)
    if kind == ARRAYS:
        labels = _as_arrays(labels_of(data))
    elif kind == DATASET:
        labels = _joined(_of_dataset(data))
    else:
        labels = _joined([_as_arrays(labels_of(each)) for each in batches_of(data)])
    if any(len(each) == 0 for each in keras.tree.flatten(labels)):
        raise ValueError("`data` is empty: it has no label.")
    return labels


def labels_of(element: Any) -> Any:
    """Return y of `(x, y)` or `(x, y, sample_weight)`: arrays, tensors or specs.

    Raises:
        ValueError: If it is not such a tuple, or y is None.
    """
    if not isinstance(element, tuple) or len(element) not in (2, 3):
        what = type(element).__name__
        if isinstance(element, tuple):
            what = f"tuple of {len(element)}"
        raise ValueError(
            f"`data` has no labels: what it holds is a {what}. It must be (x, y) or "
            "(x, y, sample_weight)."
        )
    if not [each for each in keras.tree.flatten(element[1]) if each is not None]:
        raise ValueError(
            "`data` has no labels: its y is None. It must be (x, y) or "
            "(x, y, sample_weight)."
        )
    return element[1]


def check_classes(labels: np.ndarray, num_classes: int) -> None:
    """Check that integer class labels can teach `num_classes` classes.

    A class without a single example is a UserWarning: a model learns the others.

    Args:
        labels: Array of shape `(count,)` or `(count, 1)`. Floats that are whole
            numbers will do.
        num_classes: Number of classes of the model, at least 2.

    Raises:
        ValueError: If labels are not whole numbers from 0 to `num_classes - 1`,
            fewer than the classes, or all of one class.
    """
    why = "there is nothing to distinguish in one class"
    whole_number("num_classes", num_classes, 2, why=why)
    classes = f"0 to {num_classes - 1}"
    labels = whole_numbers(labels, classes)
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.size:
        raise ValueError(
            f"{outside.size} of {labels.size} labels are outside {classes}: "
            f"{listed(np.unique(outside))}. The model has {num_classes} classes. "
            "Number the classes from 0, or give the model as many as there are."
        )
    if labels.size < num_classes:
        raise ValueError(
            f"`data` has {labels.size} label(s) for {num_classes} classes. Each class "
            "needs at least one."
        )
    counts = np.bincount(labels, minlength=num_classes)
    if np.count_nonzero(counts) == 1:
        raise ValueError(
            f"All {labels.size} labels are of one class, {labels[0]}: there is nothing "
            "to distinguish. Are the data sorted by class, and cut?"
        )
    missing = np.flatnonzero(counts == 0)
    if missing.size:
        warnings.warn(
            f"{missing.size} of {num_classes} classes have no label: "
            f"{listed(missing)}. The model will not learn them.",
            UserWarning,
            stacklevel=3,
        )


def whole_numbers(labels: Any, expected: str) -> np.ndarray:
    """Return labels of shape `(count,)` or `(count, 1)` as int64 of `(count,)`.

    Raises:
        ValueError: If the shape is another, or a label is not a whole number.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(
            f"The labels have shape {labels.shape}, but class labels have one whole "
            f"number an example, {expected}. If they are one-hot, pass their argmax: "
            "labels.argmax(-1)."
        )
    if labels.dtype.kind not in "biufV":  # "V" are bfloat16 and its like
        raise ValueError(
            f"The labels are not numbers but {labels.dtype}: {listed(labels)}. Number "
            f"the classes, {expected}."
        )
    numbers = labels.astype("float64")
    nan = np.count_nonzero(np.isnan(numbers))
    if nan:
        raise ValueError(
            f"{nan} of {labels.size} labels are NaN. Take out the examples that have "
            "no label."
        )
    # A float64 is exact up to 2**53, and infinity is beyond.
    wrong = labels[(numbers != np.trunc(numbers)) | (np.abs(numbers) > 2**53)]
    if wrong.size:
        raise ValueError(
            f"{wrong.size} of {labels.size} labels are not whole numbers: "
            f"{listed(np.unique(wrong))}. Class labels are {expected}."
        )
    return labels.astype("int64")


def choose_per_class(
    labels: np.ndarray, labels_per_class: int, seed: int
) -> np.ndarray:
    """Return which examples are chosen: as many of each class, as a boolean array.

    A seed puts each class in one order, of which the first are chosen: a smaller
    number chooses out of what a larger one does.
    """
    chosen = np.zeros(len(labels), bool)
    rng = np.random.default_rng(seed)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        chosen[rng.permutation(of_class)[:labels_per_class]] = True
    return chosen


def listed(values: Any) -> str:
    """Return the first values, by commas, and that there are more."""
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
        raise ValueError("`data` is empty: it has no batch.")
    return keras.tree.map_structure(lambda *each: np.concatenate(each), *batches)
