"""The outputs of a model on one domain, labeled or not, in one pass."""

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
    """Check what can be told before a pass.

    Raises:
        TypeError: If `data` is an iterator, which can be gone through once.
        ValueError: If it has no labels or has ones that would leak, is empty, endless
            or not batched, or its arrays do not fit each other.
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
    """Return labels, if there are some, and what each model says, in the same order.

    One pass for all of it, for a dataset may shuffle anew in each. Keep the models by
    `unchanged` meanwhile.

    Raises:
        ValueError: If a model has several outputs, or `data` turns out to be empty.
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
                    "is not known which of them are the classes. Validate a model "
                    "that ends in one."
                )
            # On several replicas each has seen the whole batch.
            found.append(np.asarray(said)[:count])
        labels.append(y)
    if not labels:
        raise ValueError(f"`{name}` is empty: it has no batch.")
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
    """Return x and y, which is None where there are to be no labels."""
    count = len(element) if isinstance(element, tuple) else 1
    if labeled:
        if count == 2 and element[1] is not None:
            return element
        what = f"tuple of {count}" if count > 1 else type(element).__name__
        raise ValueError(
            f"`{name}` must be held-out examples with their labels, (x, y), and it "
            f"holds a {what}. Sample weights are not used here."
        )
    if count == 1:
        return (element[0] if isinstance(element, tuple) else element), None
    raise ValueError(
        f"`{name}` holds a tuple of {count}, as if it had labels. They would leak into "
        "the choice of the model, which is to be made without them. Pass x alone."
    )
