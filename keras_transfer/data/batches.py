"""Data that can be gone through again: checked, and its arrays shuffled by us."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_transfer._arguments import whole_number


def fit_arguments(
    model: keras.Model, data: Any, steps: int, batch_size: int | None
) -> dict:
    """Return the arguments of `fit` for at least `steps` batches of `data`, checked.

    Raises:
        TypeError: If `data` is an iterator or of an unknown kind.
        ValueError: If it is empty, not batched, or `batch_size` cannot be used.
    """
    if hasattr(data, "__next__"):
        raise TypeError(
            f"`data` is a {type(data).__name__}, which can be gone through once: the "
            "batches used here would be missing from training. Pass what it was made "
            "of: arrays, a tf.data.Dataset, or a keras.utils.PyDataset."
        )
    if isinstance(data, tuple):
        return _shuffled(data, steps, 32 if batch_size is None else batch_size)
    if isinstance(data, keras.utils.PyDataset):
        count = data.num_batches
    elif hasattr(data, "element_spec") and hasattr(data, "cardinality"):
        _check_batched(model, data.element_spec)
        count = int(data.cardinality())
    else:
        raise TypeError(
            f"`data` is a {type(data).__name__}. Pass a tuple of arrays (x, y) or "
            "(x, y, sample_weight), a tf.data.Dataset, or a keras.utils.PyDataset."
        )
    if batch_size is not None:
        raise ValueError(
            f"batch_size={batch_size} has no effect on a {type(data).__name__}, which "
            "has batches of its own. Leave it out."
        )
    if count == 0:
        raise ValueError("`data` is empty: it has no batch to train on.")
    return {"x": data, "epochs": steps}


def _shuffled(data: tuple, steps: int, batch_size: int) -> dict:
    """Return the arrays of exactly `steps` batches, each pass in another order.

    Keras does not shuffle the arrays of a keras-hub Task, and examples sorted by class
    would show the loss of one class at a time.
    """
    whole_number("batch_size", batch_size)
    if not 1 <= len(data) <= 3:
        raise ValueError(
            f"`data` is a tuple of {len(data)}. It must be (x, y) or "
            "(x, y, sample_weight)."
        )
    leaves = []
    map_arrays(leaves.append, data)
    sizes = {len(each) for each in leaves}
    if len(sizes) != 1:
        raise ValueError(
            f"The arrays of `data` have {sorted(sizes)} examples. There must be as "
            "many of each."
        )
    (size,) = sizes
    if size == 0:
        raise ValueError("`data` is empty: its arrays have no example.")
    batch_size = min(batch_size, size)
    random = np.random.default_rng(0)
    passes = math.ceil(steps * batch_size / size)
    order = np.concatenate([random.permutation(size) for _ in range(passes)])
    order = order[: steps * batch_size]
    chosen = map_arrays(lambda array: array[order], data)
    names = ("x", "y", "sample_weight")
    return dict(zip(names, chosen)) | {"batch_size": batch_size}


def map_arrays(function: Any, data: Any) -> Any:
    """Apply `function` to the arrays of `data`; a list of plain values is one."""
    if data is None:
        return None
    if isinstance(data, dict):
        return {key: map_arrays(function, value) for key, value in data.items()}
    nested = isinstance(data, list) and data and isinstance(data[0], dict | tuple)
    if isinstance(data, tuple) or nested or _is_list_of_arrays(data):
        return type(data)(map_arrays(function, value) for value in data)
    array = np.asarray(data)
    if array.ndim == 0 or not _is_plain(array):
        raise TypeError(
            f"`data` holds a {type(data).__name__} that is no array of examples. Pass "
            "arrays of one example a row, or a tf.data.Dataset for ragged ones."
        )
    return function(array)


def _is_list_of_arrays(data: Any) -> bool:
    return isinstance(data, list) and bool(data) and hasattr(data[0], "shape")


def _check_batched(model: keras.Model, spec: Any) -> None:
    ranks = [each.shape.rank for each in keras.tree.flatten(spec)]
    flat = 0 in ranks
    inputs = getattr(model, "inputs", None) or []
    x = keras.tree.flatten(spec[0] if isinstance(spec, tuple) else spec)
    # A Task's preprocessor makes the inputs of the model; a batch may leave out an
    # axis of 1, which Keras adds.
    if getattr(model, "preprocessor", None) is None and len(x) == len(inputs):
        flat = flat or any(
            each.shape.rank == len(wanted.shape) - 1 and wanted.shape[-1] != 1
            for each, wanted in zip(x, inputs, strict=True)
        )
    if flat:
        raise ValueError(
            f"`data` is not batched: its elements are {spec}. Call data.batch(32)."
        )


def _is_plain(array: np.ndarray) -> bool:
    return array.dtype != object or all(isinstance(each, str | bytes) for each in array)
