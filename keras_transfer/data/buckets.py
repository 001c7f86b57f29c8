"""Batches of examples of one padded length each, in a seeded order of each pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf


class Buckets:
    """Groups of examples, of which each batch takes those of one group.

    The order of a pass is `numpy.random.default_rng((seed, pass))`: it permutes the
    examples of each group, and then the batches of all groups.

    Args:
        groups: Tuples `(x, y)` or `(x, y, sample_weight)` of structures of arrays. They
            may differ in each dimension after the first.
        sizes: Examples per batch of each group.
        seed: Whole number of 0 or more; None keeps the order of groups and examples.
        static_shapes: Whether the last batch of each group has as many rows as the
            others. The tuples must have sample weights, and added rows have weight 0.
    """

    def __init__(
        self,
        groups: list[tuple],
        sizes: list[int],
        seed: int | None,
        *,
        static_shapes: bool = False,
    ) -> None:
        self.groups = [keras.tree.lists_to_tuples(group) for group in groups]
        self.sizes = sizes
        self.seed = seed
        self.static_shapes = static_shapes
        self.examples = [len(keras.tree.flatten(group)[0]) for group in groups]
        pairs = zip(self.examples, sizes, strict=True)
        self.num_batches = sum(math.ceil(count / size) for count, size in pairs)

    def dataset(self, number: Callable[[], int]) -> tf.data.Dataset:
        """Return the batches, in each pass in the order of `number()`."""
        dataset = tf.data.Dataset.from_generator(
            lambda: self.batches(number()), output_signature=self._signature()
        )
        length = tf.data.experimental.assert_cardinality(self.num_batches)
        return dataset.apply(length).prefetch(tf.data.AUTOTUNE)

    def batches(self, number: int) -> Iterator[tuple]:
        """Yield the batches of the pass with this number."""
        for group, rows in self._plan(number):
            missing = self.sizes[group] - len(rows) if self.static_shapes else 0
            chosen = np.concatenate([rows, np.resize(rows, missing)])
            batch = take_rows(self.groups[group], chosen, numbers=True)
            if missing:
                for weights in keras.tree.flatten(batch[2]):
                    weights[len(rows) :] = 0  # a copy of the rows, not a view
            yield batch

    def _plan(self, number: int) -> list[tuple[int, np.ndarray]]:
        """Return the group and the rows of each batch of a pass."""
        random = None
        if self.seed is not None:
            random = np.random.default_rng((self.seed, number))
        plan = []
        for group, (count, size) in enumerate(zip(self.examples, self.sizes)):
            order = np.arange(count) if random is None else random.permutation(count)
            starts = range(0, count, size)
            plan += [(group, order[start : start + size]) for start in starts]
        if random is not None:
            plan = [plan[i] for i in random.permutation(len(plan))]
        return plan

    def _signature(self) -> tuple:
        full = self.static_shapes and len(set(self.sizes)) == 1
        rows = self.sizes[0] if full else None

        def spec(*arrays: np.ndarray) -> tf.TensorSpec:
            shapes = zip(*(array.shape[1:] for array in arrays), strict=True)
            shape = [size[0] if len(set(size)) == 1 else None for size in shapes]
            dtypes = dict(O=tf.string, S=tf.string, U=tf.string, b=tf.int32)
            dtype = dtypes.get(arrays[0].dtype.kind, arrays[0].dtype)
            return tf.TensorSpec((rows, *shape), dtype)

        return keras.tree.map_structure(spec, *self.groups)


def take_rows(arrays: tuple, rows: np.ndarray, *, numbers: bool = False) -> tuple:
    """Return these rows of a structure of arrays, copied.

    With `numbers`, Booleans become int32, the dtype of the masks of keras-hub: Keras
    adds up the first batch of all replicas, and TensorFlow adds no Booleans.
    """

    def take(array: np.ndarray) -> np.ndarray:
        chosen = array[rows]
        numeric = numbers and array.dtype.kind == "b"
        return chosen.astype("int32") if numeric else chosen

    return keras.tree.map_structure(take, arrays)
