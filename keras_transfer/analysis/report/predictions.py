"""The outputs of a model batch by batch, with the model left as it was."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.data.batches import map_arrays
from keras_transfer.data.labels import labels_of

BATCH = 32


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
    if hasattr(data, "__next__"):
        raise TypeError(
            f"`data` is a {type(data).__name__}, which can be gone through once: the "
            "batches read here would be missing elsewhere. Pass what it was made of: "
            "arrays, a tf.data.Dataset, or a keras.utils.PyDataset."
        )
    if isinstance(data, tuple):
        yield from _slices(data)
        return
    if isinstance(data, keras.utils.PyDataset):
        count = data.num_batches
        endless = count is None
        elements = map(data.__getitem__, range(count or 0))
    elif hasattr(data, "element_spec") and hasattr(data, "cardinality"):
        endless = int(data.cardinality()) == -1
        elements = data
    else:
        raise TypeError(
            f"`data` is a {type(data).__name__}. Pass a tuple of arrays (x, y), a "
            "batched tf.data.Dataset, or a keras.utils.PyDataset."
        )
    if endless:
        raise ValueError(
            f"`data` is a {type(data).__name__} without an end, so it cannot be gone "
            "through. Leave out repeat(), or take(n) batches of it."
        )
    for element in elements:
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
    leaves = []
    map_arrays(leaves.append, (data[0], labels))
    sizes = {len(each) for each in leaves}
    if len(sizes) != 1:
        raise ValueError(
            f"The arrays of `data` have {sorted(sizes)} examples. There must be as "
            "many of each."
        )
    for start in range(0, len(labels), BATCH):
        part = slice(start, start + BATCH)
        yield map_arrays(functools.partial(_part, part), data[0]), labels[part]


def _one_array(labels: Any) -> np.ndarray:
    if isinstance(labels, list):
        labels = map_arrays(np.asarray, labels)
    if keras.tree.is_nested(labels):
        raise ValueError(
            f"The labels of `data` are a {type(labels).__name__}. A report reads one "
            "array of labels."
        )
    return np.asarray(labels)


def _part(part: slice, array: np.ndarray) -> Any:
    """Return rows of an array; strings as a tensor, which layers ask for."""
    rows = array[part]
    return ops.convert_to_tensor(rows) if rows.dtype.kind in "OUS" else rows
