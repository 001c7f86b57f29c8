"""Check features, outputs and labels, and return them as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer.data.labels import listed
from keras_transfer.data.labels import whole_numbers

ROW_SUM = 0.02  # largest distance from 1 of a sum of float16 probabilities
LARGEST = 1e100  # squares of larger features could add up to infinity


def as_features(name: str, values: Any, least: int = 1) -> np.ndarray:
    """Return features as float64 of shape `(count, size)`, with more axes flattened.

    Raises:
        ValueError: If features are not finite numbers, are too large, have no feature
            axis, or have fewer than `least` examples.
    """
    array = _numbers(name, values)
    if array.ndim < 2:
        raise ValueError(
            f"`{name}` has the shape {array.shape}, but features need a row for each "
            "example. If each example is one number, pass array.reshape(-1, 1)."
        )
    if len(array) < least or array.size == 0:
        raise ValueError(
            f"`{name}` has the shape {array.shape}, which is {len(array)} example(s). "
            f"Pass at least {max(least, 1)}, each with at least one feature."
        )
    array = _finite(name, array.reshape(len(array), -1))
    if np.abs(array).max() > LARGEST:
        raise ValueError(
            f"`{name}` has values up to {np.abs(array).max():.3g}. Their squares are "
            "too large to add up. Check whether the training diverged."
        )
    return array


def as_domains(
    source: Any, target: Any, least: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return the features of both domains, which must have the same size.

    Raises:
        ValueError: If `as_features` raises, or if the examples of the two domains
            have different shapes.
    """
    shapes = np.shape(source)[1:], np.shape(target)[1:]
    source = as_features("source", source, least)
    target = as_features("target", target, least)
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"Examples have the shape {shapes[0]} in `source`, but {shapes[1]} in "
            "`target`. Pass features of the same network for both."
        )
    return source, target


def as_probabilities(outputs: Any, from_logits: bool) -> np.ndarray:
    """Return class probabilities as float64 of shape `(count, classes)`.

    Outputs of shape `(count, 1)` or `(count,)` are the probability, or the logit, of
    the second of two classes. A sigmoid gives such outputs.

    Raises:
        TypeError: If `from_logits` is not a bool.
        ValueError: If `outputs` are empty, not finite, of another shape, or do not
            match `from_logits`.
    """
    if not isinstance(from_logits, bool):
        raise TypeError(
            f"from_logits={from_logits!r} is not a bool. Pass True or False."
        )
    array = _numbers("outputs", outputs)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.size == 0:
        raise ValueError(
            f"`outputs` has the shape {array.shape}. Pass the outputs of a classifier, "
            "of shape (count, classes), with at least one row."
        )
    array = _finite("outputs", array)
    if from_logits:
        return _softmax(array)
    if array.shape[1] == 1:
        array = np.concatenate([1 - array, array], axis=1)
    if not _are_rows(array):
        sums = array.sum(1)
        raise ValueError(
            f"`outputs` are not probabilities. Values are from {array.min():.4g} to "
            f"{array.max():.4g}, and rows add up to {sums.min():.4g} to "
            f"{sums.max():.4g}. If they are logits, pass from_logits=True."
        )
    array = np.maximum(array, 0)
    return array / array.sum(1, keepdims=True)


def as_classes(y: Any, num_classes: int) -> np.ndarray:
    """Return labels as class numbers, in int64 of shape `(count,)`.

    The labels `y` are class numbers or one-hot rows.

    Raises:
        ValueError: If labels have another form, are outside the classes, or are all
            of one class.
    """
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == num_classes > 1:
        rows = _numbers("y", labels)
        if not (np.isin(rows, (0, 1)).all() and (rows.sum(1) == 1).all()):
            raise ValueError(
                f"`y` has the shape {labels.shape}, but its rows are not one-hot. Pass "
                "the class number of each example."
            )
        labels = rows.argmax(1)
    labels = whole_numbers(labels, f"0 to {num_classes - 1}")
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.size:
        raise ValueError(
            f"{outside.size} of {labels.size} labels are outside 0 to "
            f"{num_classes - 1}: {listed(np.unique(outside))}. Number the classes in "
            "the order of the model's outputs."
        )
    if np.unique(labels).size < 2:
        raise ValueError(
            f"`y` has {labels.size} label(s), of at most one class: {listed(labels)}. "
            "A model that always predicts that class would get a perfect score. Hold "
            "out examples of every class."
        )
    return labels


def as_column(name: str, values: Any) -> np.ndarray:
    """Return one number of at least 0 for each example, as float64 of shape `(count,)`.

    Raises:
        ValueError: If values are missing, negative or not finite, or if there is more
            than one for each example.
    """
    array = _numbers(name, values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"`{name}` has the shape {array.shape}. Pass one number for each example, "
            "of the shape (count,), for at least one example."
        )
    array = _finite(name, array)
    if array.min() < 0:
        raise ValueError(
            f"`{name}` has negative values, down to {array.min():.4g}. Pass numbers of "
            "at least 0."
        )
    return array


def _numbers(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "biufV":  # bfloat16 is of kind "V"
        raise ValueError(
            f"`{name}` has the dtype {array.dtype}. Pass an array of numbers."
        )
    return array.astype("float64")


def _finite(name: str, array: np.ndarray) -> np.ndarray:
    wrong = np.count_nonzero(~np.isfinite(array))
    if wrong:
        raise ValueError(
            f"{wrong} of {array.size} values of `{name}` are NaN or infinite. Check "
            "whether the training diverged."
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
            "`outputs` are already probabilities, because all rows add up to 1 and "
            "have no negative values. A second softmax would flatten them. Leave out "
            "from_logits=True."
        )
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
