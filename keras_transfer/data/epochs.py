"""Arrays as a dataset in an order that follows from a seed and the epoch alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.data.examples import map_arrays


class Epochs:
    """Shuffle arrays anew in each epoch of `fit`, and alike when it is resumed.

    Keras does not shuffle the arrays of a keras-hub Task at all, and the order in
    which it shuffles others depends on what was drawn before. The order here is
    `numpy.random.default_rng((seed, epoch)).permutation(n)`. Pass `dataset` to `fit`
    and `clock` among its callbacks, which tells the epoch.

    Args:
        arrays: Tuple `(x, y)` or `(x, y, sample_weight)` of arrays, or structures
            of arrays, of one length.
        batch_size: Examples a batch; the last batch may be smaller.
        seed: Whole number of 0 or more; None keeps the order of the arrays.
    """

    def __init__(self, arrays: tuple, batch_size: int, seed: int | None) -> None:
        self.arrays = _tuples(arrays)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.examples = len(keras.tree.flatten(self.arrays)[0])

    @property
    def batches(self) -> int:
        """The number of batches of an epoch."""
        return math.ceil(self.examples / self.batch_size)

    @property
    def dataset(self) -> tf.data.Dataset:
        """The batches, each time in the order of the epoch that has begun."""
        batches = self._dataset(lambda: self._cut(self._order()))
        return batches.prefetch(tf.data.AUTOTUNE)

    @property
    def in_order(self) -> tf.data.Dataset:
        """The batches in the order of the arrays."""
        return self._dataset(lambda: self._cut(np.arange(self.examples)))

    @property
    def clock(self) -> keras.callbacks.Callback:
        """A callback by which each epoch of `fit` gets its own order."""

        def begin(epoch: int, logs: dict | None = None) -> None:
            self.epoch = epoch

        return keras.callbacks.LambdaCallback(on_epoch_begin=begin)

    def _dataset(self, batches: Any) -> tf.data.Dataset:
        signature = keras.tree.map_structure(
            lambda x: tf.TensorSpec((None, *x.shape[1:]), _dtype(x)), self.arrays
        )
        dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
        known = tf.data.experimental.assert_cardinality(self.batches)
        return dataset.apply(known)

    def _order(self) -> np.ndarray:
        if self.seed is None:
            return np.arange(self.examples)
        random = np.random.default_rng((self.seed, self.epoch))
        return random.permutation(self.examples)

    def _cut(self, order: np.ndarray) -> Iterator[tuple]:
        for start in range(0, self.examples, self.batch_size):
            rows = order[start : start + self.batch_size]
            yield _rows(self.arrays, rows)


def _tuples(arrays: tuple) -> tuple:
    """Return NumPy arrays in a structure without lists, which tf.data would stack."""
    return keras.tree.lists_to_tuples(map_arrays(np.asarray, arrays))


def _rows(arrays: tuple, rows: np.ndarray) -> tuple:
    return keras.tree.map_structure(lambda x: x[rows], arrays)


def _dtype(array: np.ndarray) -> Any:
    return tf.string if array.dtype.kind in "OSU" else array.dtype
