"""Compute the outputs of models on one domain, labeled or not, in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import batches_of
from keras_transfer.data.examples import check_batched
from keras_transfer.data.examples import check_finite
from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import DATASET
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import rows_of


def check_domain(name: str, data: Any, labeled: bool) -> None:
    """Check what can be checked before a pass over `data`.

    Raises:
        TypeError: If `data` is an iterator, which allows only one pass.
        ValueError: If `data` lacks labels, has labels that would leak, is empty,
            infinite or not batched, or has arrays that do not fit each other.
    """
    kind = kind_of(data, name, x_alone=True)
    if kind == ARRAYS:
        count_rows(_parts(name, data, labeled), name)
        return
    if kind == DATASET:
        _parts(name, data.element_spec, labeled)
        check_batched(data, name)
    check_finite(data, name)


def read_domain(
    name: str,
    models: list[keras.Model],
    data: Any,
    labeled: bool,
    batch_size: int,
) -> tuple[np.ndarray | None, list[np.ndarray]]:
    """Return the labels, or None, and the outputs of each model, in the same order.

    All models run in one pass, because a dataset can have a new order in each pass.
    Call this within `unchanged` for each model.

    Raises:
        ValueError: If a model has several outputs, or if `data` has no batches.
    """
    labels, outputs = [], [[] for _ in models]
    for x, y in _batches(name, data, labeled, batch_size):
        leaf = keras.tree.flatten(x)[0]
        count = int(leaf.shape[0])
        for model, found in zip(models, outputs, strict=True):
            said = model.predict_on_batch(x)
            if keras.tree.is_nested(said):
                raise ValueError(
                    f"The model {model.name!r} has several outputs on `{name}`, so it "
                    "is not clear which output has the classes. Pass a model with one "
                    "output."
                )
            # With several replicas, each replica returns outputs for the whole batch.
            found.append(np.asarray(said)[:count])
        labels.append(y)
    if not labels:
        raise ValueError(f"`{name}` has no batches. Pass at least one example.")
    joined = [np.concatenate(each) for each in outputs]
    return (np.concatenate(labels) if labeled else None), joined


def _batches(
    name: str, data: Any, labeled: bool, batch_size: int
) -> Iterator[tuple[Any, np.ndarray | None]]:
    if kind_of(data, name, x_alone=True) == ARRAYS:
        yield from _slices(*_parts(name, data, labeled), batch_size)
        return
    for element in batches_of(data, name):
        x, y = _parts(name, element, labeled)
        yield x, None if y is None else np.asarray(y)


def _slices(x: Any, y: Any, batch_size: int) -> Iterator[tuple[Any, Any]]:
    labels = None if y is None else np.asarray(y)
    for start in range(0, count_rows(x), batch_size):
        part = slice(start, start + batch_size)
        yield rows_of(x, part), None if labels is None else labels[part]


def _parts(name: str, element: Any, labeled: bool) -> tuple[Any, Any]:
    """Return x and y. If `labeled` is False, y is None."""
    count = len(element) if isinstance(element, tuple) else 1
    if labeled:
        if count == 2 and element[1] is not None:
            return element
        what = f"tuple of {count}" if count > 1 else type(element).__name__
        raise ValueError(
            f"`{name}` contains a {what}. Pass held-out examples with their labels, "
            "(x, y), without sample weights."
        )
    if count == 1:
        return (element[0] if isinstance(element, tuple) else element), None
    raise ValueError(
        f"`{name}` contains a tuple of {count}, so it seems to have labels. The labels "
        "would leak into the choice of the model. Pass x alone."
    )
