"""The check of the labels against the compiled loss, before training."""

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

# More classes per token than this are words, and no data set contains all words.
VOCABULARY = 1000


def check_labels(
    loss: Any, output: tuple | None, labels: Any, *, learned: bool = True
) -> None:
    """Check that a model can train on `labels` with this loss.

    For the crossentropies of Keras and a model with one output, the classes are
    checked. For any other loss, such as regression or a custom loss, labels must be
    finite numbers.

    Args:
        loss: The loss that was passed to `compile`.
        output: Shape of the output of the model, or None if the shape is unknown or the
            model has several outputs.
        labels: All labels, as returned by `read_labels`.
        learned: Bool, False for validation labels, which can lack classes.
            Defaults to True.

    Raises:
        ValueError: If labels are not finite, out of range, of the wrong shape, all of
            one class, or fewer than the classes.
    """
    labels, said = keras.tree.flatten(labels), read_loss(loss)
    for each in labels:
        _check_numbers(each)
    if output is None or len(labels) != 1:
        return
    (labels,) = labels
    if said.labels == SPARSE:
        if len(output) > 2:  # one class per token or pixel
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
    if labels.dtype.kind not in "biufV":  # "V" are bfloat16 and similar types
        raise ValueError(
            f"The labels are not numbers but {labels.dtype}: {listed(labels.flat)}. "
            "Number the classes from 0."
        )
    if labels.dtype.kind in "fV":
        wrong = np.count_nonzero(~np.isfinite(labels.astype("float64")))
        if wrong:
            raise ValueError(
                f"{wrong} of {labels.size} labels are NaN or infinite. Remove the "
                "examples without a label."
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
            f"{listed(np.unique(outside))}. Number the classes from 0, or build the "
            "model with more outputs."
        )


def _check_binary(labels: np.ndarray, output: tuple, learned: bool) -> None:
    if output[-1] != 1:
        _check_shape(labels, output, "labels of several classes at once")
    outside = labels[(labels < 0) | (labels > 1)]
    if outside.size:
        raise ValueError(
            f"{outside.size} of {labels.size} labels are outside [0, 1], the range of "
            f"a binary crossentropy: {listed(np.unique(outside))}. For numbered "
            "classes, compile with 'sparse_categorical_crossentropy', and build the "
            "model with one output per class."
        )
    if learned and (labels == labels.flat[0]).all():
        raise ValueError(
            f"All {labels.size} labels are {labels.flat[0]}, so there are no classes "
            "to distinguish. Pass examples of both classes. A part of data that are "
            "sorted by class may lack a class."
        )


def _check_shape(labels: np.ndarray, output: tuple, what: str) -> None:
    pairs = zip(labels.shape[1:], output[1:])
    same = all(size is None or size == found for found, size in pairs)
    if len(labels.shape) != len(output) or not same:
        raise ValueError(
            f"The labels have the shape {labels.shape}, but the output of the model "
            f"has the shape {output}, and the loss needs {what}. For numbered classes, "
            "compile with 'sparse_categorical_crossentropy'."
        )
