"""Variables with a row for each adapter, whose number of rows a graph leaves open."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf


def growing(value: np.ndarray, name: str, *, free: Sequence[int] = ()) -> tf.Variable:
    """Return a variable whose first axis has no fixed size in the graph.

    The graph then also fits a checkpoint with more rows, see `add_adapter`.

    Args:
        value: The first value.
        name: Name of the variable.
        free: Other axes without a fixed size, such as the rank. Defaults to `()`.
    """
    open_axes = {0, *(axis % value.ndim for axis in free)}
    shape = [None if i in open_axes else size for i, size in enumerate(value.shape)]
    return tf.Variable(value, shape=tf.TensorShape(shape), name=name)


def rows_of(places: Sequence[object], present: Sequence[object]) -> np.ndarray:
    """Return the row of each adapter in a stack, or -1, first of no adapter.

    Args:
        places: What each adapter has at a layer, or None.
        present: What the stack contains, in its order.
    """
    position = {id(each): number for number, each in enumerate(present)}
    return np.array([-1, *(position.get(id(each), -1) for each in places)], "int64")


def filled(value: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Return an array with zeros at the end of an axis, up to `size`."""
    widths = [(0, 0)] * value.ndim
    widths[axis] = (0, size - value.shape[axis])
    return np.pad(value, widths)


def appended(stack: np.ndarray, row: np.ndarray, axis: int) -> np.ndarray:
    """Return a stack with one more row, with both filled up along `axis` of the row."""
    if row.ndim:
        axis %= row.ndim
        size = max(row.shape[axis], stack.shape[axis + 1])
        stack, row = filled(stack, size, axis + 1), filled(row, size, axis)
    return np.concatenate([stack, row[None].astype(stack.dtype)])
