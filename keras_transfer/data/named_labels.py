"""Number labels that are strings, in the same way as LabelEncoder of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import map_arrays
from keras_transfer.data.labels import listed


def is_named(labels: Any) -> bool:
    """Return whether labels are strings, with one name for each example."""
    if keras.tree.is_nested(labels) or labels.dtype.kind not in "OSUT":
        return False
    return labels.ndim == 1 or labels.ndim == 2 and labels.shape[1] == 1


def choose_names(
    labels: np.ndarray, num_classes: int | None, known: Sequence[str] | None
) -> tuple[str, ...]:
    """Return the names of the classes in the order of their numbers.

    Args:
        labels: Names, one for each example.
        num_classes: Number of classes of the model, or None if it is not known.
        known: Names that the model or the data already has. They are returned if they
            include all labels.

    Raises:
        ValueError: If the number of names differs from the number of classes.
    """
    names = tuple(sorted(set(_texts(labels))))
    if known is not None and set(names) <= set(known):
        return tuple(known)
    if num_classes is not None and len(names) != num_classes:
        raise ValueError(
            f"The labels have {len(names)} names, {listed(names)}, but the model has "
            f"{num_classes} classes, so it is not clear which number each name has. "
            f"Build the model with {len(names)} classes, or number the labels yourself."
        )
    return names


def number_names(labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return the indices of labels in `names`, of shape `(count,)`.

    Raises:
        ValueError: If a label is not in `names`.
    """
    places = {name: place for place, name in enumerate(names)}
    texts = _texts(labels)
    unknown = [text for text in texts if text not in places]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(texts)} labels are not among the {len(names)} "
            f"class names ({listed(names)}): {listed(sorted(set(unknown)))}. Remove "
            "these examples, or correct their labels."
        )
    return np.array([places[text] for text in texts], "int64")


def with_numbers(data: Any, names: Sequence[str], *, one_hot: bool) -> Any:
    """Return data with class numbers or one-hot rows instead of named labels.

    Args:
        data: Tuple of arrays `(x, y)` or `(x, y, sample_weight)`, or a batched
            `tf.data.Dataset` of such tuples.
        names: Names of the classes in the order of their numbers.
        one_hot: Whether the loss needs one-hot rows.

    Raises:
        ValueError: If `data` is a PyDataset, or a label is not in `names`.
    """
    if kind_of(data) == ARRAYS:
        x, y, *weight = data
        numbers = number_names(map_arrays(lambda array: array, y), names)
        if one_hot:
            numbers = np.eye(len(names), dtype="float32")[numbers]
        return (x, numbers, *weight)
    if isinstance(data, keras.utils.PyDataset):
        raise ValueError(
            "The labels are names, which cannot be numbered in a PyDataset. Return "
            f"the index of each name in {list(names)} from its __getitem__."
        )
    table = tf.constant(list(names))

    def numbered(x: Any, y: tf.Tensor, *weight: Any) -> tuple:
        found = tf.reshape(y, (-1, 1)) == table
        if one_hot:
            return (x, tf.cast(found, "float32"), *weight)
        return (x, tf.argmax(found, axis=1), *weight)

    return data.map(numbered)


def without_booleans(data: Any) -> Any:
    """Return data with labels 0 and 1 instead of False and True.

    Keras does not support class weights for boolean labels.

    Args:
        data: Tuple of arrays, a `tf.data.Dataset`, or a PyDataset. A PyDataset is
            returned unchanged.
    """
    if isinstance(data, tuple):
        labels = map_arrays(lambda array: array, data[1])
        if labels.dtype != bool:
            return data
        return (data[0], labels.astype("int64"), *data[2:])
    if not isinstance(data, tf.data.Dataset) or data.element_spec[1].dtype != tf.bool:
        return data
    return data.map(lambda x, y, *weight: (x, tf.cast(y, "int64"), *weight))


def _texts(labels: np.ndarray) -> list[str]:
    flat = labels.reshape(-1).tolist()
    return [x.decode() if isinstance(x, bytes) else str(x) for x in flat]
