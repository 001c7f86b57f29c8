"""The test part of a comparison in batches, always the same."""

from __future__ import annotations

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


class Batches:
    """Tuples `(x, y)`, `(x, y, weight)`, or `(x,)` if a model makes its labels.

    Args:
        inputs: Checked inputs, whose validation data are the test part. A dataset is
            read once and kept.
    """

    def __init__(self, inputs: Inputs) -> None:
        self._data, self._made = inputs.validation_data, inputs.made
        self._arrays = kind_of(self._data, x_alone=True) == ARRAYS
        if not self._arrays:
            batches = batches_of(self._data)
            self._data = [keras.tree.map_structure(_kept, each) for each in batches]

    def __iter__(self) -> Iterator[tuple]:
        if not self._arrays:
            yield from (x if isinstance(x, tuple) else (x,) for x in self._data)
            return
        for start in range(0, len(self), BATCH_SIZE):
            batch = rows_of(self._data, slice(start, start + BATCH_SIZE))
            yield (batch,) if self._made else batch

    def __len__(self) -> int:
        if self._arrays:
            return count_rows(self._data)
        return sum(len(keras.tree.flatten(batch)[0]) for batch in self._data)


def _kept(x: Any) -> Any:
    """Return numbers as an array, which every backend takes, and strings unchanged."""
    return x if "string" in str(x.dtype) else np.asarray(x)
