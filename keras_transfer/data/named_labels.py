"""Labels that are names: numbered as scikit-learn's LabelEncoder does."""

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
    """Return whether labels are strings, a name an example."""
    if keras.tree.is_nested(labels) or labels.dtype.kind not in "OSUT":
        return False
    return labels.ndim == 1 or labels.ndim == 2 and labels.shape[1] == 1


def choose_names(
    labels: np.ndarray, num_classes: int | None, known: Sequence[str] | None
) -> tuple[str, ...]:
    """Return the names of the classes in the order of their numbers.

    Args:
        labels: Names, one an example.
        num_classes: Number of classes of the model, or None if it is not known.
        known: Names that the model or the data have already. They keep their numbers
            if all labels are among them.

    Raises:
        ValueError: If there are not as many names as classes.
    """
    names = tuple(sorted(set(_texts(labels))))
    if known is not None and set(names) <= set(known):
        return tuple(known)
    if num_classes is not None and len(names) != num_classes:
        raise ValueError(
            f"The labels have {len(names)} names, {listed(names)}, but the model has "
            f"{num_classes} classes, so it is not known which number each name has. "
            "Give the model as many classes, or number the labels yourself."
        )
    return names


def number_names(labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return the places of labels in `names`, of shape `(count,)`.

    Raises:
        ValueError: If a label is not among them.
    """
    places = {name: place for place, name in enumerate(names)}
    texts = _texts(labels)
    unknown = [text for text in texts if text not in places]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(texts)} labels are none of the "
            f"{len(names)} names of the classes ({listed(names)}): "
            f"{listed(sorted(set(unknown)))}."
        )
    return np.array([places[text] for text in texts], "int64")


def with_numbers(data: Any, names: Sequence[str], *, one_hot: bool) -> Any:
    """Return data with numbers, or one-hot rows, in place of named labels.

    Args:
        data: Tuple of arrays `(x, y)` or `(x, y, sample_weight)`, or a batched
            `tf.data.Dataset` of these.
        names: Names of the classes in the order of their numbers.
        one_hot: Whether the loss takes one-hot rows.

    Raises:
        ValueError: If it is a PyDataset, or a label is not among the names.
    """
    if kind_of(data) == ARRAYS:
        x, y, *weight = data
        numbers = number_names(map_arrays(lambda array: array, y), names)
        if one_hot:
            numbers = np.eye(len(names), dtype="float32")[numbers]
        return (x, numbers, *weight)
    if isinstance(data, keras.utils.PyDataset):
        raise ValueError(
            "The labels are names, and those of a PyDataset are not numbered here. "
            f"Return their places in {list(names)} from its __getitem__."
        )
    table = tf.constant(list(names))

    def numbered(x: Any, y: tf.Tensor, *weight: Any) -> tuple:
        found = tf.reshape(y, (-1, 1)) == table
        if one_hot:
            return (x, tf.cast(found, "float32"), *weight)
        return (x, tf.argmax(found, axis=1), *weight)

    return data.map(numbered)


def without_booleans(data: Any) -> Any:
    """Return data whose labels are 0 and 1 in place of False and True.

    Keras cannot give classes that are booleans a weight.

    Args:
        data: Tuple of arrays, a `tf.data.Dataset`, or a PyDataset, which stays.
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
