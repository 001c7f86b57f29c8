"""The data of a training as epochs: their order, their length, and what repeats."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.backbones.fingerprint import RowDigest
from keras_transfer.data.examples import count_batches
from keras_transfer.data.examples import map_arrays

# Batches of two passes that are compared first: several, since augmentation that is
# rare may spare one.
FIRST = 8


class Clock(keras.callbacks.Callback):
    """The number of the epoch of `fit` that began last, 0 before the first."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Note the number."""
        self.epoch = epoch


class Epochs:
    """Shuffle arrays in each epoch of `fit`, in the same way when it is resumed.

    Keras does not shuffle the arrays of a keras-hub Task at all, and the order in
    which it shuffles others depends on what was drawn before. The order here is
    `numpy.random.default_rng((seed, epoch)).permutation(n)`. Pass `dataset` to `fit`
    and `clock`, which knows the epoch, among its callbacks.

    Args:
        arrays: Tuple `(x, y)` or `(x, y, sample_weight)` of arrays, or structures
            of arrays, of one length.
        batch_size: Examples per batch; the last batch may be smaller.
        seed: Whole number of 0 or more; None keeps the order of the arrays.
        clock: A `Clock` that several share. Default None, one of its own.
        replicas: Number of replicas that share a batch. Where the last one is too small
            for each to get an example, it gets some of the batch before. Default 1.
    """

    def __init__(
        self,
        arrays: tuple,
        batch_size: int,
        seed: int | None,
        clock: Clock | None = None,
        replicas: int = 1,
    ) -> None:
        self.arrays = _tuples(arrays)
        self.batch_size = batch_size
        self.seed = seed
        self.clock = Clock() if clock is None else clock
        self.examples = len(keras.tree.flatten(self.arrays)[0])
        self.sizes = batch_sizes(self.examples, batch_size, replicas)

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

    def _dataset(self, batches: Any) -> tf.data.Dataset:
        signature = keras.tree.map_structure(
            lambda x: tf.TensorSpec((None, *x.shape[1:]), _dtype(x)), self.arrays
        )
        dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
        length = tf.data.experimental.assert_cardinality(self.batches)
        return dataset.apply(length)

    def _order(self) -> np.ndarray:
        if self.seed is None:
            return np.arange(self.examples)
        random = np.random.default_rng((self.seed, self.clock.epoch))
        return random.permutation(self.examples)

    def _cut(self, order: np.ndarray) -> Iterator[tuple]:
        ends = np.cumsum(self.sizes)
        for start, end in zip(ends - self.sizes, ends, strict=True):
            yield _rows(self.arrays, order[start:end])


def batch_sizes(examples: int, batch_size: int, replicas: int) -> list[int]:
    """Return the size of each batch of an epoch, of `batch_size` but for the last two.

    Convolutions and BatchNormalization of TensorFlow fail on a replica that gets no
    example.
    """
    full, rest = divmod(examples, batch_size)
    sizes = [batch_size] * full + [rest] * bool(rest)
    if full and rest and not reaches_all(rest, replicas):
        both = batch_size + rest
        splits = [(both - last, last) for last in range(rest + 1, both)]
        splits = [
            pair for pair in splits if all(reaches_all(x, replicas) for x in pair)
        ]
        # Keras reads the first batch of an evaluation as of equal shares.
        equal = [pair for pair in splits if pair[0] % replicas == 0]
        sizes[-2:] = next(iter([*equal, *splits]), sizes[-2:])
    return sizes


def reaches_all(size: int, replicas: int) -> bool:
    """Return whether each replica gets an example of a batch.

    TensorFlow gives each but the last ones an equal share, rounded up.
    """
    return (replicas - 1) * math.ceil(size / replicas) < size


class Repeated(NamedTuple):
    """Batches of the same examples in each pass.

    `same_order` says whether their order is the same too, so that what a pass gave can
    be used again; `shuffled` whether each epoch of training has an order of its own.
    """

    dataset: tf.data.Dataset
    batch_size: int
    same_order: bool
    shuffled: bool


def repeated(data: Any, role: str) -> Repeated:
    """Return the batches of data that give the same examples in each pass.

    Args:
        data: `Epochs`, a batched, finite `tf.data.Dataset`, or a PyDataset.
        role: What the data are, for the error: "of training" or "of validation".

    Raises:
        ValueError: If the examples may differ in each pass, with the reason.
    """
    if isinstance(data, Epochs):
        return Repeated(data.in_order, data.batch_size, same_order=True, shuffled=True)
    if isinstance(data, keras.utils.PyDataset):
        raise ValueError(f"a PyDataset, as that {role}, may differ in each pass")
    try:
        same = same_order(data)
    except ValueError as reason:
        raise ValueError(f"{reason} (that {role})") from reason
    first = next(data.take(1).as_numpy_iterator())
    size = len(keras.tree.flatten(first)[-1])
    return Repeated(data, size, same_order=same, shuffled=not same)


def same_order(dataset: tf.data.Dataset) -> bool:
    """Return whether two passes over a batched dataset begin equally.

    Args:
        dataset: A batched, finite `tf.data.Dataset`.

    Returns:
        False if the examples are the same, in another order.

    Raises:
        ValueError: If the examples themselves differ, since it augments at random, or
            cannot be compared, since they are ragged or sparse.
    """
    specs = keras.tree.flatten(dataset.element_spec)
    if not all(isinstance(spec, tf.TensorSpec) for spec in specs):
        raise ValueError("the dataset has ragged or sparse tensors")
    # Under a global seed two iterators draw the same numbers; a repeat does not.
    begins = [_digest(x) for x in dataset.take(FIRST).repeat(2).as_numpy_iterator()]
    if begins[: len(begins) // 2] == begins[len(begins) // 2 :]:
        return True
    passes = []
    # The passes may differ in their number of batches, but each begins with 0.
    for number, batch in dataset.enumerate().repeat(2).as_numpy_iterator():
        if number == 0:
            passes.append(collections.Counter())
        rows = len(keras.tree.flatten(batch)[-1])
        passes[-1].update(_digest(_rows(batch, slice(i, i + 1))) for i in range(rows))
    if passes[0] != passes[-1]:
        raise ValueError("the dataset gives other examples in each pass")
    return False


def with_length(dataset: tf.data.Dataset, examples: int) -> tf.data.Dataset:
    """Return a dataset that knows its number of batches; counting them takes a pass.

    Of one that does not know it, `fit` finds the end by a step without data, which
    counts as an update of the optimizer, and Keras warns of it in each epoch.

    Args:
        dataset: A batched, finite `tf.data.Dataset`.
        examples: Their number in another pass. Where it differs from that in this one,
            the dataset is returned as it is.
    """
    if count_batches(dataset) is not None:
        return dataset
    sizes = [len(keras.tree.flatten(x)[-1]) for x in dataset.as_numpy_iterator()]
    if sum(sizes) != examples:
        return dataset
    return dataset.apply(tf.data.experimental.assert_cardinality(len(sizes)))


def num_batches(data: Any) -> int:
    """Return the number of batches of an epoch; counting them may take a pass.

    Args:
        data: `Epochs`, a finite `tf.data.Dataset`, or a PyDataset.
    """
    if isinstance(data, Epochs):
        return data.batches
    count = count_batches(data)
    return sum(1 for _ in data) if count is None else count


def _tuples(arrays: tuple) -> tuple:
    """Return NumPy arrays in a structure without lists, which tf.data would stack."""
    return keras.tree.lists_to_tuples(map_arrays(np.asarray, arrays))


def _rows(arrays: tuple, rows: np.ndarray | slice) -> tuple:
    return keras.tree.map_structure(lambda x: x[rows], arrays)


def _dtype(array: np.ndarray) -> Any:
    return tf.string if array.dtype.kind in "OSU" else array.dtype


def _digest(batch: tuple) -> str:
    digest = RowDigest()
    digest.update(batch)
    return digest.value()
