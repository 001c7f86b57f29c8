"""Convert all common forms of class weights to the dictionary that Keras needs."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer.data.labels import listed
from keras_transfer.losses.compiled_loss import BINARY
from keras_transfer.losses.compiled_loss import NUMBERS
from keras_transfer.losses.compiled_loss import ONE_HOT
from keras_transfer.losses.compiled_loss import read_loss

BALANCED = "balanced"


def class_weights(
    weights: Any,
    labels: Any,
    loss: Any,
    output: tuple | None = None,
    names: Sequence[str] | None = None,
) -> dict[int, float] | None:
    """Return a weight for each class, with 1 for classes that `weights` lacks.

    Keras fills in missing classes for arrays, but not for a tf.data.Dataset.

    Args:
        weights: One of these: a dictionary of class number or class name to weight; a
            sequence, array or column with one weight per class, such as the result of
            scikit-learn's `compute_class_weight`; "balanced", which is scikit-learn's
            `examples / (classes * examples of the class)`; None.
        labels: All labels, as numbers.
        loss: The loss that was passed to `compile`.
        output: Shape of the output of the model. Defaults to None, which means unknown.
        names: Names of the classes. Defaults to None.

    Raises:
        ValueError: If an example does not have exactly one class, if a class is
            unknown, if the number of weights differs from the number of classes, or if
            a weight is not a number of at least 0.
    """
    if weights is None or isinstance(weights, Mapping) and not weights:
        return None
    classes = _class_of_each(labels, loss, output)
    count = _num_classes(classes, labels, loss, output)
    if isinstance(weights, str):
        if weights != BALANCED:
            raise _unusable(weights, "it is a str that is not 'balanced'")
        numbers_of_each = np.bincount(classes, minlength=count)
        present = np.count_nonzero(numbers_of_each)
        weights = {
            number: len(classes) / (present * each)
            for number, each in enumerate(numbers_of_each)
            if each
        }
    elif hasattr(weights, "to_dict"):
        weights = weights.to_dict()  # a pandas column, by its index
    elif not isinstance(weights, Mapping):
        weights = _listed_by_class(weights, count)
    found = {_number(key, count, names): value for key, value in weights.items()}
    for value in found.values():
        real = isinstance(value, numbers.Real | np.number)
        if not real or not math.isfinite(value) or value < 0:
            raise _unusable(weights, f"{value!r} is not a number of 0 or more")
    found = {number: float(value) for number, value in found.items()}
    found = dict.fromkeys(range(count), 1.0) | found
    if not any(found.values()):
        raise _unusable(weights, "all weights are 0, so nothing would train")
    return found


def _class_of_each(labels: Any, loss: Any, output: tuple | None) -> np.ndarray:
    """Return the class number of each example."""
    said = read_loss(loss)
    why = None
    if keras.tree.is_nested(labels):
        why = "the model has several outputs"
    elif said.labels == NUMBERS:
        why = f"the loss {said.name!r} is for numbers, not for classes"
    elif said.labels == BINARY and labels.ndim > 1 and labels.shape[-1] > 1:
        why = "each example has several yes-or-no labels"
    elif labels.ndim > 2 or said.labels not in (ONE_HOT, None) and _is_wide(labels):
        why = f"each example has several labels, of shape {labels.shape[1:]}"
    elif output is not None and len(output) > 2:
        why = f"each example has several outputs, {output[1:]}"
    if why is not None:
        raise ValueError(
            "class_weight cannot be used, because an example does not have exactly one "
            f"class: {why}. Pass weights of examples, tokens or pixels as sample "
            "weights in `data`: (x, y, sample_weight)."
        )
    if _is_wide(labels):
        return labels.argmax(-1)
    classes = np.round(labels.reshape(-1).astype("float64")).astype("int64")
    if (classes < 0).any():
        raise ValueError(
            "class_weight cannot be used, because "
            f"{np.count_nonzero(classes < 0)} labels are below 0: "
            f"{listed(np.unique(classes[classes < 0]))}. Remove these examples, or "
            "pass sample weights in `data`: (x, y, sample_weight)."
        )
    return classes


def _num_classes(
    classes: np.ndarray, labels: np.ndarray, loss: Any, output: tuple | None
) -> int:
    if _is_wide(labels):
        return labels.shape[-1]
    if read_loss(loss).labels == BINARY:
        return 2
    highest = int(classes.max()) + 1
    return highest if output is None else max(highest, output[-1] or 0)


def _is_wide(labels: np.ndarray) -> bool:
    return labels.ndim > 1 and labels.shape[-1] > 1


def _listed_by_class(weights: Any, count: int) -> dict:
    array = np.asarray(weights)
    if array.ndim != 1 or len(array) != count:
        shape = f"it has the shape {array.shape}" if array.ndim else "it is not a list"
        raise _unusable(weights, f"{shape}, and there are {count} classes")
    return dict(enumerate(array))


def _number(key: Any, count: int, names: Sequence[str] | None) -> int:
    """Return the class number for a key of `class_weight`."""
    if isinstance(key, bytes):
        key = key.decode()
    if isinstance(key, str):
        if key not in (names or ()):
            known = f"are {listed(names)}" if names else "have numbers and no names"
            raise ValueError(
                f"class_weight names the class {key!r}, but the classes {known}. Use "
                "the names or numbers of the classes as keys."
            )
        return names.index(key)
    whole = isinstance(key, numbers.Real | np.number | np.bool_) and key == int(key)
    if not whole or not 0 <= key < count:
        raise ValueError(
            f"class_weight names the class {key!r}, but the classes are the whole "
            f"numbers 0 to {count - 1}. Use these numbers as keys."
        )
    return int(key)


def _unusable(weights: Any, why: str) -> ValueError:
    return ValueError(
        f"class_weight={weights!r} cannot be used: {why}. Pass a dictionary of class "
        "number to weight, a list with one weight for each class, or 'balanced'."
    )
