"""Features, outputs and labels of two domains as checked arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer.data.labels import listed
from keras_transfer.data.labels import whole_numbers

ROW_SUM = 0.02  # how far the probabilities of float16 may add up beside 1
LARGEST = 1e100  # features whose squares, and sums of them, are finite


def as_features(name: str, values: Any, least: int = 1) -> np.ndarray:
    """Return features as float64 of shape `(count, size)`; more axes are flattened.

    Raises:
        ValueError: If they are no finite numbers, too large, have no axis of features,
            or are fewer than `least` examples.
    """
    array = _numbers(name, values)
    if array.ndim < 2:
        raise ValueError(
            f"`{name}` has the shape {array.shape}, but features have a row for each "
            "example. If each example is one number, pass array.reshape(-1, 1)."
        )
    if len(array) < least or array.size == 0:
        raise ValueError(
            f"`{name}` has the shape {array.shape}: {len(array)} example(s), where at "
            f"least {max(least, 1)} with one feature or more are needed."
        )
    array = _finite(name, array.reshape(len(array), -1))
    if np.abs(array).max() > LARGEST:
        raise ValueError(
            f"`{name}` has values up to {np.abs(array).max():.3g}, whose squares are "
            "too large to add up. Has the training diverged?"
        )
    return array


def as_domains(
    source: Any, target: Any, least: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return the features of both domains, which must have the same size.

    Raises:
        ValueError: As `as_features`, or if an example of one domain has another
            shape than one of the other.
    """
    shapes = np.shape(source)[1:], np.shape(target)[1:]
    source = as_features("source", source, least)
    target = as_features("target", target, least)
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"An example of `source` has the shape {shapes[0]}, and one of `target` "
            f"{shapes[1]}. Both must be features of the same network."
        )
    return source, target


def as_probabilities(outputs: Any, from_logits: bool) -> np.ndarray:
    """Return class probabilities as float64 of shape `(count, classes)`.

    One column, or none, is the probability (or the logit) of the second of two
    classes, as of a sigmoid.

    Raises:
        TypeError: If `from_logits` is not a bool.
        ValueError: If `outputs` are empty, not finite, of another shape, or not what
            `from_logits` says.
    """
    if not isinstance(from_logits, bool):
        raise TypeError(f"from_logits={from_logits!r} must be True or False.")
    array = _numbers("outputs", outputs)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.size == 0:
        raise ValueError(
            f"`outputs` has the shape {array.shape}, but a classifier gives at least "
            "one row of class probabilities or logits: (count, classes)."
        )
    array = _finite("outputs", array)
    if from_logits:
        return _softmax(array)
    if array.shape[1] == 1:
        array = np.concatenate([1 - array, array], axis=1)
    if not _are_rows(array):
        sums = array.sum(1)
        raise ValueError(
            f"`outputs` are no probabilities: values from {array.min():.4g} to "
            f"{array.max():.4g}, rows that add up to {sums.min():.4g} to "
            f"{sums.max():.4g}. If they are logits, pass from_logits=True."
        )
    array = np.maximum(array, 0)
    return array / array.sum(1, keepdims=True)


def as_classes(y: Any, num_classes: int) -> np.ndarray:
    """Return labels, numbers of classes or one-hot rows, as int64 of `(count,)`.

    Raises:
        ValueError: If they are neither, name a class that is not there, or are all
            of one class.
    """
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == num_classes > 1:
        rows = _numbers("y", labels)
        if not (np.isin(rows, (0, 1)).all() and (rows.sum(1) == 1).all()):
            raise ValueError(
                f"`y` has the shape {labels.shape}, but its rows are not one-hot. Pass "
                "the number of the class of each example."
            )
        labels = rows.argmax(1)
    labels = whole_numbers(labels, f"0 to {num_classes - 1}")
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.size:
        raise ValueError(
            f"{outside.size} of {labels.size} labels are outside 0 to "
            f"{num_classes - 1}: {listed(np.unique(outside))}. Number the classes as "
            "the outputs of the model are ordered."
        )
    if np.unique(labels).size < 2:
        raise ValueError(
            f"`y` has {labels.size} label(s) of one class or none: {listed(labels)}. "
            "A model that always says that class would look perfect. Hold out "
            "examples of every class."
        )
    return labels


def as_column(name: str, values: Any) -> np.ndarray:
    """Return one number of at least 0 for each example, as float64 of `(count,)`.

    Raises:
        ValueError: If there are none, or they are negative, not finite or more than
            one an example.
    """
    array = _numbers(name, values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"`{name}` has the shape {array.shape}. It must be one number for each "
            "example, (count,), and at least one."
        )
    array = _finite(name, array)
    if array.min() < 0:
        raise ValueError(f"`{name}` has negative values, down to {array.min():.4g}.")
    return array


def _numbers(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "biufV":  # "V" are bfloat16 and its like
        raise ValueError(f"`{name}` is of type {array.dtype}, and not numbers.")
    return array.astype("float64")


def _finite(name: str, array: np.ndarray) -> np.ndarray:
    wrong = np.count_nonzero(~np.isfinite(array))
    if wrong:
        raise ValueError(
            f"{wrong} of {array.size} values of `{name}` are NaN or infinite. Has the "
            "training diverged?"
        )
    return array


def _are_rows(array: np.ndarray) -> bool:
    near = np.abs(array.sum(1) - 1).max() < ROW_SUM
    return bool(near and array.min() > -1e-6)


def _softmax(logits: np.ndarray) -> np.ndarray:
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    elif _are_rows(logits):
        raise ValueError(
            "`outputs` are probabilities already: all rows add up to 1 and have no "
            "negative value. A second softmax would flatten them. Leave "
            "from_logits=True out."
        )
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
