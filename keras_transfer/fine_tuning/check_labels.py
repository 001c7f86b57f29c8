"""Labels against the compiled loss, before any training."""

from typing import Any

import keras
import numpy as np

from keras_transfer.data.labels import check_classes
from keras_transfer.data.labels import listed
from keras_transfer.data.labels import whole_numbers
from keras_transfer.losses.compiled_loss import BINARY
from keras_transfer.losses.compiled_loss import ONE_HOT
from keras_transfer.losses.compiled_loss import read_loss
from keras_transfer.losses.compiled_loss import SPARSE

# Above so many classes for each token they are words, of which no data have all.
VOCABULARY = 1000


def check_labels(
    loss: Any, output: tuple | None, labels: Any, *, learned: bool = True
) -> None:
    """Check that `labels` are what a loss can learn from.

    Classes are checked for the crossentropies of Keras, of one output each. For any
    other loss, of regression or your own, labels must be finite numbers.

    Args:
        loss: What was given to `compile`.
        output: Shape of the output of the model; None if it is not known, or there
            are several.
        labels: All labels, as of `read_labels`.
        learned: False for labels of validation, which need not have all classes.

    Raises:
        ValueError: If labels are not finite, out of range, of the wrong shape, all
            of one class, or fewer than the classes.
    """
    labels, said = keras.tree.flatten(labels), read_loss(loss)
    for each in labels:
        _check_numbers(each)
    if output is None or len(labels) != 1:
        return
    (labels,) = labels
    if said.labels == SPARSE:
        if len(output) > 2:  # a class for each token or pixel
            labels = labels.reshape(-1)
            learned = learned and output[-1] <= VOCABULARY
        if said.ignore_class is not None:
            labels = labels[labels != said.ignore_class]
        _check_classes(labels, output[-1], learned)
    elif said.labels == ONE_HOT:
        _check_shape(labels, output, "one-hot labels")
        _check_classes(labels.argmax(-1).reshape(-1), output[-1], learned)
    elif said.labels == BINARY:
        _check_binary(labels, output, learned)


def _check_numbers(labels: np.ndarray) -> None:
    if labels.dtype.kind not in "biufV":  # "V" are bfloat16 and its like
        raise ValueError(
            f"The labels are not numbers but {labels.dtype}: {listed(labels.flat)}. "
            "Number the classes from 0."
        )
    if labels.dtype.kind in "fV":
        wrong = np.count_nonzero(~np.isfinite(labels.astype("float64")))
        if wrong:
            raise ValueError(
                f"{wrong} of {labels.size} labels are NaN or infinite. Take out the "
                "examples that have no label."
            )


def _check_classes(labels: np.ndarray, classes: int, learned: bool) -> None:
    if learned:
        check_classes(labels, classes)
        return
    labels = whole_numbers(labels, f"0 to {classes - 1}")
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size:
        raise ValueError(
            f"{outside.size} of {labels.size} labels are outside 0 to {classes - 1}: "
            f"{listed(np.unique(outside))}."
        )


def _check_binary(labels: np.ndarray, output: tuple, learned: bool) -> None:
    if output[-1] != 1:
        _check_shape(labels, output, "labels of several classes at once")
    outside = labels[(labels < 0) | (labels > 1)]
    if outside.size:
        raise ValueError(
            f"{outside.size} of {labels.size} labels are outside [0, 1], as which a "
            f"binary crossentropy takes them: {listed(np.unique(outside))}. For "
            "numbered classes compile with 'sparse_categorical_crossentropy' and as "
            "many outputs as classes."
        )
    if learned and (labels == labels.flat[0]).all():
        raise ValueError(
            f"All {labels.size} labels are {labels.flat[0]}: there is nothing to "
            "distinguish. Are the data sorted by class, and cut?"
        )


def _check_shape(labels: np.ndarray, output: tuple, what: str) -> None:
    pairs = zip(labels.shape[1:], output[1:])
    same = all(size is None or size == found for found, size in pairs)
    if len(labels.shape) != len(output) or not same:
        raise ValueError(
            f"The labels have the shape {labels.shape}, but the output of the model is "
            f"{output}, and the loss asks for {what}. For numbered classes compile "
            "with 'sparse_categorical_crossentropy'."
        )
