"""Nested subsets of labeled examples, with all classes in each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer._arguments import whole_number
from keras_transfer.data.examples import batches_of
from keras_transfer.data.examples import map_arrays

LEAST = 8  # labels in the smallest default subset, or two of each class


def as_arrays(data: Any) -> tuple:
    """Return data as arrays `(x, y)` or `(x, y, sample_weight)`."""
    if isinstance(data, tuple):
        return map_arrays(np.asarray, tuple(x for x in data if x is not None))
    batches = [keras.tree.map_structure(np.asarray, each) for each in batches_of(data)]
    return keras.tree.map_structure(lambda *each: np.concatenate(each), *batches)


def nested_order(classes: np.ndarray | None, count: int, seed: int) -> np.ndarray:
    """Return an order of which every beginning has the same shares of classes.

    Args:
        classes: Class number of each example, or None if labels are not classes.
        count: Number of examples.
        seed: Seed of the order.
    """
    order = np.random.default_rng(seed).permutation(count)
    if classes is None:
        return order
    places = np.empty(count)
    for number in np.unique(classes):
        rows = order[classes[order] == number]
        places[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    # The sort is stable, so classes with equal places come in random order. The first
    # example of each class comes before all others.
    firsts = np.zeros(count, bool)
    for number in np.unique(classes):
        firsts[order[classes[order] == number][0]] = True
    return order[np.lexsort((places[order], ~firsts[order]))]


def checked_sizes(
    sizes: Sequence[int] | None, count: int, num_classes: int
) -> list[int]:
    """Return the sizes of the subsets in increasing order.

    Raises:
        ValueError: If a size is not a whole number, is beyond the data, or is below
            the number of classes, or if sizes are equal.
    """
    if sizes is None:
        found, least = [count], max(LEAST, 2 * num_classes)
        while found[0] // 2 >= least and len(found) < 5:
            found.insert(0, found[0] // 2)
        return found
    found = sorted(whole_number("sizes", size) for size in sizes)
    if not found or len(set(found)) < len(found):
        raise ValueError(f"sizes={list(sizes)} must be different numbers of labels.")
    if found[-1] > count:
        raise ValueError(
            f"sizes={list(sizes)} has {found[-1]}, but the data have {count} examples. "
            "Pass sizes of at most this number."
        )
    if found[0] < num_classes:
        raise ValueError(
            f"sizes={list(sizes)} has {found[0]}, but there are {num_classes} classes. "
            "Pass sizes with at least one example of each class."
        )
    return found
