"""The test part of a comparison in batches, always the same."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import BATCH_SIZE
from keras_transfer.data.examples import batches_of
from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import rows_of
from keras_transfer.fine_tuning.inputs import Inputs
from keras_transfer.fine_tuning.pilot.scores import GROUPS


def check_test(test: Any) -> None:
    """Raise an error that names `test` if there is none.

    Raises:
        ValueError: If `test` is None.
    """
    if test is None:
        raise ValueError(
            "test=None, so nothing can be measured. Pass test data of the same type as "
            "`data`, which no training has seen."
        )


class Batches:
    """Tuples `(x, y)`, `(x, y, weight)`, or `(x,)` if a model makes its labels.

    There are `GROUPS` batches or more, as far as there are examples, because intervals
    come from the differences between batches. Those of arrays are random examples.

    Args:
        inputs: Checked inputs, whose validation data are the test part. A dataset is
            read once and kept.
    """

    def __init__(self, inputs: Inputs) -> None:
        self._data, self._made = inputs.validation_data, inputs.made
        self._arrays = kind_of(self._data, x_alone=True) == ARRAYS
        if not self._arrays:
            read = list(batches_of(self._data))
            size = sum(map(_count, read)) / GROUPS
            self._data = [piece for batch in read for piece in _pieces(batch, size)]

    def __iter__(self) -> Iterator[tuple]:
        if not self._arrays:
            yield from (x if isinstance(x, tuple) else (x,) for x in self._data)
            return
        count = len(self)
        groups = max(min(GROUPS, count), math.ceil(count / BATCH_SIZE))
        order = np.random.default_rng(0).permutation(count)
        for rows in np.array_split(order, groups):
            batch = rows_of(self._data, rows)
            yield (batch,) if self._made else batch

    def __len__(self) -> int:
        if self._arrays:
            return count_rows(self._data)
        return sum(map(_count, self._data))


def _count(batch: Any) -> int:
    return len(keras.tree.flatten(batch)[0])


def _pieces(batch: Any, size: float) -> Iterator[Any]:
    """Yield a batch in parts of at most a size, or in single examples."""
    batch = keras.tree.map_structure(_kept, batch)
    count = _count(batch)
    ends = np.linspace(0, count, min(math.ceil(count / size), count) + 1).astype(int)
    for start, end in itertools.pairwise(ends.tolist()):
        part = slice(start, end)
        yield keras.tree.map_structure(lambda x, part=part: x[part], batch)


def _kept(x: Any) -> Any:
    """Return numbers as an array, which every backend takes, and strings unchanged."""
    return x if "string" in str(x.dtype) else np.asarray(x)
