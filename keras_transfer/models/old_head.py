"""The last layer of an old classifier, and new data that it can answer."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.data.examples import batches_of
from keras_transfer.data.examples import check_batched
from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import DATASET
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import map_arrays
from keras_transfer.data.labels import labels_of

TINY = 1e-7


def head_of(old_model: object) -> keras.Layer:
    """Return the last layer of the old model.

    Raises:
        TypeError: If it is not a model.
        ValueError: If it does not end in a Dense layer of logits or a softmax.
    """
    if not isinstance(old_model, keras.Model):
        raise TypeError(
            f"old_model is a {type(old_model).__name__}, not a Keras model. Pass the "
            "classifier of the old task."
        )
    head = old_model.layers[-1] if _keras.has_graph(old_model) else None
    fits = isinstance(head, keras.layers.Dense) and head.units > 1
    if not fits or head.activation not in (
        keras.activations.linear,
        keras.activations.softmax,
    ):
        raise ValueError(
            f"old_model={old_model.name!r} does not end in a Dense layer with two or "
            "more classes, without an activation or with a softmax, so its responses "
            "are not known. Pass a functional or Sequential model with such a layer."
        )
    return head


def arrays_for(old_model: keras.Model, data: Any, num_classes: int) -> tuple:
    """Return new data as arrays. A dataset is read once, into memory.

    Raises:
        TypeError: If the data can be read only once or is of an unknown kind.
        ValueError: If the data is empty, or a label is not one of the new classes.
    """
    if kind_of(data, py_dataset=False) == DATASET:
        check_batched(data, model=old_model)
        batches = [
            keras.tree.map_structure(np.asarray, each) for each in batches_of(data)
        ]
        data = keras.tree.map_structure(lambda *x: np.concatenate(x), *batches)
    data = tuple(map_arrays(np.asarray, data))
    count_rows(data)
    _check_labels(labels_of(data), num_classes)
    return data


def log_of(outputs: Any) -> Any:
    """Return the logarithm of probabilities, of an array or a tensor."""
    if isinstance(outputs, np.ndarray):
        return np.log(np.maximum(outputs, TINY))
    return ops.log(ops.maximum(outputs, TINY))


def _check_labels(labels: Any, num_classes: int) -> None:
    if keras.tree.is_nested(labels) or labels.dtype.kind not in "iu":
        return
    if labels.ndim == 2 and labels.shape[1] == num_classes:
        return
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise ValueError(
            f"{wrong.size} of {labels.size} labels are outside 0 to {num_classes - 1}, "
            f"such as {wrong.flat[0]}. Number the new classes from 0."
        )
