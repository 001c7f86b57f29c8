"""Select what counts in a batch: examples, or single tokens or pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from keras_transfer.analysis.report.predictions import Batch

MOST = 4_000_000  # largest number of outputs to read at a time


class Rows(NamedTuple):
    """Labels and outputs that count, and the index of each row in its batch."""

    labels: np.ndarray
    outputs: np.ndarray
    index: np.ndarray
    shape: tuple[int, ...]

    def owners(self) -> np.ndarray:
        """Return the number of the example that each row belongs to."""
        return self.index // max(math.prod(self.shape), 1)

    def place(self, row: int) -> list[int]:
        """Return the position of a row within its example."""
        inside = self.index[row] % max(math.prod(self.shape), 1)
        return [int(each) for each in np.unravel_index(inside, self.shape)]


def is_dense(batch: Batch) -> bool:
    """Return whether examples have a label for each token or pixel."""
    outputs, labels = batch.outputs, batch.labels
    if outputs.ndim < 3 or labels.shape[: outputs.ndim - 1] != outputs.shape[:-1]:
        return False
    last = labels.shape[outputs.ndim - 1 :]
    return last in ((), (1,), outputs.shape[-1:])


def rows_of_batch(batch: Batch, dense: bool, ignored: int | None) -> Iterator[Rows]:
    """Yield the rows of a batch that count, in parts.

    Args:
        batch: A batch.
        dense: Whether a row is a token or pixel instead of an example.
        ignored: The label of rows that do not count, or None.

    Raises:
        ValueError: If the number of labels or the shape of the sample weights does not
            fit the outputs.
    """
    outputs, labels = batch.outputs, batch.labels
    axes = outputs.ndim - 1 if dense else 1
    shape, size = outputs.shape[1:axes], math.prod(outputs.shape[:axes])
    if len(labels) != len(outputs):
        raise ValueError(
            f"The labels of `data` have the shape {labels.shape}, but the outputs of "
            f"the model have the shape {outputs.shape}. Pass one label for each "
            "output."
        )
    index = np.flatnonzero(_counted(batch, outputs.shape[:axes], ignored))
    outputs = outputs.reshape(size, *outputs.shape[axes:])
    labels = labels.reshape(size, *labels.shape[axes:])
    step = max(1, MOST // max(math.prod(outputs.shape[1:]), 1))
    for start in range(0, len(index), step):
        part = index[start : start + step]
        yield Rows(labels[part], outputs[part], part, shape)


def _counted(batch: Batch, shape: tuple[int, ...], ignored: int | None) -> np.ndarray:
    """Return which examples, tokens or pixels count."""
    counted = np.ones(shape, bool)
    if batch.mask is not None and batch.mask.shape == shape:
        counted &= batch.mask.astype(bool)
    labels = batch.labels
    if ignored is not None and labels.shape in (shape, (*shape, 1)):
        counted &= labels.reshape(shape) != ignored
    if batch.weights is None:
        return counted
    weights = np.asarray(batch.weights)
    if weights.shape in (shape, (*shape, 1)):
        return counted & (weights.reshape(shape) != 0)
    axes = weights.shape[1:]
    if weights.ndim and (len(weights) != shape[0] or any(x != 1 for x in axes)):
        raise ValueError(
            f"The sample weights of `data` have the shape {weights.shape}, but the "
            f"labels have the shape {shape}. Pass one weight for each label, or one "
            "for each example."
        )
    rows = weights.reshape(-1, *[1] * (len(shape) - 1)) if weights.ndim else weights
    return counted & (rows != 0)
