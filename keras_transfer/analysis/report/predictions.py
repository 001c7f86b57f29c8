"""The outputs of a model batch by batch, with the model left as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import BATCH_SIZE
from keras_transfer.data.examples import batches_of
from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import map_arrays
from keras_transfer.data.examples import rows_of
from keras_transfer.data.labels import labels_of


class Batch(NamedTuple):
    """A batch of examples and what the model says of them."""

    x: Any
    labels: np.ndarray
    outputs: np.ndarray

    def example(self, index: int) -> Any:
        """Return one example: arrays, or bytes of a text, in the structure of x."""
        return keras.tree.map_structure(lambda each: np.asarray(each[index]), self.x)


def predictions(model: keras.Model, data: Any) -> Iterator[Batch]:
    """Yield the batches of `data` in order; keep the model by `unchanged` meanwhile.

    Raises:
        TypeError: If `data` is an iterator or of an unknown kind.
        ValueError: If it is empty, endless, not batched or has no labels, or if the
            model has not one array of outputs.
    """
    count = 0
    for x, labels in _batches(data):
        count += 1
        outputs = model.predict_on_batch(x)
        if keras.tree.is_nested(outputs):
            raise ValueError(
                f"The model {model.name!r} has several outputs, so it is not known "
                "which of them `data` has labels for. Report a model that ends in the "
                "one of interest."
            )
        # On several replicas each has seen the whole batch.
        yield Batch(x, labels, np.asarray(outputs)[: len(labels)])
    if not count:
        raise ValueError("`data` is empty: it has no example.")


@contextlib.contextmanager
def unchanged(model: keras.Model) -> Iterator[None]:
    """Give back the compiled function and all that a forward pass may change."""
    function = model.predict_function
    variables = _keras.untrained(model)
    with _keras.random_state_kept():
        before = _keras.snapshot(variables)
        # One traced before layers were changed in place would not know of it.
        model.predict_function = None
        try:
            yield
        finally:
            _keras.restore(variables, before)
            model.predict_function = function


def _batches(data: Any) -> Iterator[tuple[Any, np.ndarray]]:
    if kind_of(data) == ARRAYS:
        yield from _slices(data)
        return
    for element in batches_of(data):
        labels = _one_array(labels_of(element))
        if labels.ndim == 0:
            raise ValueError(
                "`data` is not batched: a label of it is a single value. Call "
                "data.batch(32)."
            )
        if len(labels):
            yield element[0], labels


def _slices(data: tuple) -> Iterator[tuple[Any, np.ndarray]]:
    labels = _one_array(labels_of(data))
    for start in range(0, count_rows((data[0], labels)), BATCH_SIZE):
        part = slice(start, start + BATCH_SIZE)
        yield rows_of(data[0], part), labels[part]


def _one_array(labels: Any) -> np.ndarray:
    if isinstance(labels, list):
        labels = map_arrays(np.asarray, labels)
    if keras.tree.is_nested(labels):
        raise ValueError(
            f"The labels of `data` are a {type(labels).__name__}. A report reads one "
            "array of labels."
        )
    return np.asarray(labels)
