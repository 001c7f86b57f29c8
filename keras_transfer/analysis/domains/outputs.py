"""The outputs of a model on one domain, labelled or not, in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transfer.data.batches import map_arrays


def is_dataset(data: Any) -> bool:
    """Return whether `data` has batches of its own: a tf.data.Dataset or PyDataset."""
    return isinstance(data, keras.utils.PyDataset) or (
        hasattr(data, "element_spec") and hasattr(data, "cardinality")
    )


def check_domain(name: str, data: Any, labelled: bool) -> None:
    """Check what can be told before a pass.

    Raises:
        TypeError: If `data` is an iterator, which can be gone through once.
        ValueError: If it has no labels or has ones that would leak, is empty, endless
            or not batched, or its arrays do not fit each other.
    """
    if hasattr(data, "__next__"):
        raise TypeError(
            f"`{name}` is a {type(data).__name__}, which can be gone through once, but "
            "it is read at the end of every epoch. Pass arrays, a tf.data.Dataset, or "
            "a keras.utils.PyDataset."
        )
    if isinstance(data, keras.utils.PyDataset):
        size = data.num_batches
    elif is_dataset(data):
        size = int(data.cardinality())
        size = None if size == -1 else size
        spec = data.element_spec
        _parts(name, spec, labelled)
        if any(each.shape.rank == 0 for each in keras.tree.flatten(spec)):
            raise ValueError(
                f"`{name}` is not batched: its elements are {spec}. Call "
                f"{name}.batch(32)."
            )
    else:
        x, y = _parts(name, data, labelled)
        leaves = []
        map_arrays(leaves.append, (x, y) if labelled else x)
        sizes = {len(each) for each in leaves}
        if len(sizes) != 1:
            raise ValueError(
                f"The arrays of `{name}` have {sorted(sizes)} examples. There must be "
                "as many of each."
            )
        (size,) = sizes
    if size == 0:
        raise ValueError(f"`{name}` is empty: it has no example.")
    if size is None:
        raise ValueError(
            f"`{name}` is a {type(data).__name__} without an end, so it cannot be gone "
            "through. Leave out repeat(), or take(n) batches of it."
        )


def read_domain(
    name: str,
    models: list[keras.Model],
    data: Any,
    labelled: bool,
    batch_size: int,
) -> tuple[np.ndarray | None, list[np.ndarray]]:
    """Return labels, if there are some, and what each model says, in the same order.

    One pass for all of it, for a dataset may shuffle anew in each. Keep the models by
    `unchanged` meanwhile.

    Raises:
        ValueError: If a model has several outputs, or `data` turns out to be empty.
    """
    labels, outputs = [], [[] for _ in models]
    for x, y in _batches(name, data, labelled, batch_size):
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
    return (np.concatenate(labels) if labelled else None), joined


def _batches(
    name: str, data: Any, labelled: bool, batch_size: int
) -> Iterator[tuple[Any, np.ndarray | None]]:
    if not is_dataset(data):
        yield from _slices(*_parts(name, data, labelled), batch_size)
        return
    elements = data
    if isinstance(data, keras.utils.PyDataset):
        elements = map(data.__getitem__, range(data.num_batches))
    for element in elements:
        x, y = _parts(name, element, labelled)
        yield x, None if y is None else np.asarray(y)


def _slices(x: Any, y: Any, batch_size: int) -> Iterator[tuple[Any, Any]]:
    leaves = []
    map_arrays(leaves.append, x)
    labels = None if y is None else np.asarray(y)
    for start in range(0, len(leaves[0]), batch_size):
        part = slice(start, start + batch_size)
        rows = map_arrays(lambda array, part=part: _rows(array[part]), x)
        yield rows, None if labels is None else labels[part]


def _rows(array: np.ndarray) -> Any:
    """Return strings as a tensor, which layers ask for, and numbers as they are."""
    return ops.convert_to_tensor(array) if array.dtype.kind in "OUS" else array


def _parts(name: str, element: Any, labelled: bool) -> tuple[Any, Any]:
    """Return x and y, which is None where there are to be no labels."""
    count = len(element) if isinstance(element, tuple) else 1
    if labelled:
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
