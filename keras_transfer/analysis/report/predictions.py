"""Compute the outputs of a model batch by batch, without changing the model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.analysis.report.by_output import labels_by_name
from keras_transfer.analysis.report.by_output import outputs_by_name
from keras_transfer.analysis.report.by_output import weights_by_name
from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import BATCH_SIZE
from keras_transfer.data.examples import batches_of
from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import map_arrays
from keras_transfer.data.examples import rows_of
from keras_transfer.data.labels import labels_of


class Batch(NamedTuple):
    """A batch of examples, and one of the model's outputs for them."""

    x: Any
    labels: np.ndarray
    outputs: np.ndarray
    weights: np.ndarray | None = None
    mask: np.ndarray | None = None

    def example(self, index: int) -> Any:
        """Return one example in the structure of x. Texts are bytes."""
        return keras.tree.map_structure(lambda each: np.asarray(each[index]), self.x)


def predictions(
    model: keras.Model, data: Any, masked: bool = False
) -> Iterator[dict[str, Batch | None]]:
    """Yield a dict from output names to `Batch` for each batch of `data`.

    For a model with one output the name is "". An output without labels has None. Call
    this function within `unchanged`.

    Args:
        model: A model.
        data: Arrays, a batched dataset or a PyDataset.
        masked: Whether the model also returns masks, as in `_keras.masks_predicted`.

    Raises:
        TypeError: If `data` is an iterator or of an unknown kind.
        ValueError: If `data` is empty, infinite, not batched or has no labels, or if
            the labels do not fit the outputs.
    """
    count = 0
    for x, labels, weights in _batches(data):
        count += 1
        outputs, masks = model.predict_on_batch(x), {}
        if masked:
            outputs, masks = outputs
        named = outputs_by_name(model, outputs)
        labels = labels_by_name(model, named, labels)
        weights = weights_by_name(model, named, weights)
        found = {}
        for name, (key, each) in named.items():
            found[name] = None
            if labels.get(name) is None:
                continue
            label = _one_array(labels[name])
            # With several replicas, each replica returns outputs for the whole batch.
            rows, mask = len(label), masks.get(key)
            mask = None if mask is None else np.asarray(mask)[:rows]
            found[name] = Batch(
                x, label, np.asarray(each)[:rows], weights.get(name), mask
            )
        yield found
    if not count:
        raise ValueError("`data` is empty. Pass at least one example.")


@contextlib.contextmanager
def unchanged(model: keras.Model) -> Iterator[None]:
    """Restore the predict function and all state that a forward pass can change."""
    function = model.predict_function
    variables = _keras.untrained(model)
    with _keras.random_state_kept():
        before = _keras.snapshot(variables)
        # An old predict function misses changes made to layers after its tracing.
        _keras.remake_functions(model, "predict")
        try:
            yield
        finally:
            _keras.restore(variables, before)
            model.predict_function = function


def _batches(data: Any) -> Iterator[tuple[Any, Any, Any]]:
    if kind_of(data) == ARRAYS:
        yield from _slices(data)
        return
    for element in batches_of(data):
        labels, weights = labels_of(element), element[2] if len(element) > 2 else None
        first = next(x for x in keras.tree.flatten(labels) if x is not None)
        if np.ndim(first) == 0:
            raise ValueError(
                "`data` is not batched, because a label is a single value. Call "
                "data.batch(32)."
            )
        if len(first):
            yield element[0], labels, weights


def _slices(data: tuple) -> Iterator[tuple[Any, Any, Any]]:
    labels = map_arrays(np.asarray, labels_of(data))
    weights = map_arrays(np.asarray, data[2]) if len(data) > 2 else None
    for start in range(0, count_rows((data[0], labels)), BATCH_SIZE):
        part = slice(start, start + BATCH_SIZE)
        yield rows_of(data[0], part), _cut(labels, part), _cut(weights, part)


def _cut(arrays: Any, part: slice) -> Any:
    return map_arrays(lambda array: array[part], arrays)


def _one_array(labels: Any) -> np.ndarray:
    if keras.tree.is_nested(labels):
        raise ValueError(
            f"The labels of `data` are a {type(labels).__name__}. Pass one array of "
            "labels for each output of the model."
        )
    return np.asarray(labels)
