"""Epochs of training data: their order, their length, and whether they repeat."""

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

# Number of batches of two passes that are compared first. With only one batch, rare
# augmentation could go unnoticed.
FIRST = 8


class Clock(keras.callbacks.Callback):
    """The number of the current epoch of `fit`, or 0 before the first epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Store the number of the epoch."""
        self.epoch = epoch


class Epochs:
    """Shuffle arrays in each epoch of `fit`, with the same order in a resumed run.

    Keras does not shuffle the arrays of a keras-hub Task. For other models, the order
    from Keras depends on earlier random draws. The order here is
    `numpy.random.default_rng((seed, epoch)).permutation(n)`. Pass `dataset` to `fit`,
    and pass `clock`, which counts epochs, as a callback.

    Args:
        arrays: Tuple `(x, y)` or `(x, y, sample_weight)` of arrays or structures of
            arrays, which all have the same length.
        batch_size: Integer, the number of examples in each batch. The last batch can be
            smaller.
        seed: Integer of 0 or more, or None to keep the order of the arrays.
        clock: A `Clock` that other objects share. Defaults to `None`, a new clock.
        replicas: Integer, the number of replicas that share a batch. If the last batch
            is too small to give each replica an example, it takes some examples from
            the batch before. Defaults to 1.
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
        """The number of batches in an epoch."""
        return math.ceil(self.examples / self.batch_size)

    @property
    def dataset(self) -> tf.data.Dataset:
        """The batches in the order of the current epoch."""
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
    """Return the size of each batch of an epoch.

    All sizes are `batch_size`, except the last two. Convolutions and
    BatchNormalization of TensorFlow fail on a replica without examples.
    """
    full, rest = divmod(examples, batch_size)
    sizes = [batch_size] * full + [rest] * bool(rest)
    if full and rest and not reaches_all(rest, replicas):
        both = batch_size + rest
        splits = [(both - last, last) for last in range(rest + 1, both)]
        splits = [
            pair for pair in splits if all(reaches_all(x, replicas) for x in pair)
        ]
        # Keras assumes equal shares for the first batch of an evaluation.
        equal = [pair for pair in splits if pair[0] % replicas == 0]
        sizes[-2:] = next(iter([*equal, *splits]), sizes[-2:])
    return sizes


def reaches_all(size: int, replicas: int) -> bool:
    """Return whether each replica gets an example of a batch.

    TensorFlow gives each replica an equal share, rounded up, until no example is left.
    """
    return (replicas - 1) * math.ceil(size / replicas) < size


class Repeated(NamedTuple):
    """Batches of the same examples in each pass.

    `same_order` is True if the order is the same in each pass, so the results of one
    pass can be used again. `shuffled` is True if each training epoch has a new order.
    """

    dataset: tf.data.Dataset
    batch_size: int
    same_order: bool
    shuffled: bool


def repeated(data: Any, role: str) -> Repeated:
    """Return the batches of data that has the same examples in each pass.

    Args:
        data: `Epochs`, a batched, finite `tf.data.Dataset`, or a PyDataset.
        role: "of training" or "of validation", for the error message.

    Raises:
        ValueError: If the examples can differ between passes.
    """
    if isinstance(data, Epochs):
        return Repeated(data.in_order, data.batch_size, same_order=True, shuffled=True)
    if isinstance(data, keras.utils.PyDataset):
        raise ValueError(f"the PyDataset {role} can differ in each pass")
    try:
        same = same_order(data)
    except ValueError as reason:
        raise ValueError(f"{reason} (the dataset {role})") from reason
    first = next(data.take(1).as_numpy_iterator())
    size = len(keras.tree.flatten(first)[-1])
    return Repeated(data, size, same_order=same, shuffled=not same)


def same_order(dataset: tf.data.Dataset) -> bool:
    """Return whether two passes over a batched dataset start with the same batches.

    Args:
        dataset: A batched, finite `tf.data.Dataset`.

    Returns:
        True if they do. False if the examples are the same but the order differs.

    Raises:
        ValueError: If the examples differ, for example through random augmentation, or
            if they are ragged or sparse and cannot be compared.
    """
    specs = keras.tree.flatten(dataset.element_spec)
    if not all(isinstance(spec, tf.TensorSpec) for spec in specs):
        raise ValueError("the dataset has ragged or sparse tensors")
    # With a global seed, two iterators draw the same random numbers. `repeat` does not.
    begins = [_digest(x) for x in dataset.take(FIRST).repeat(2).as_numpy_iterator()]
    if begins[: len(begins) // 2] == begins[len(begins) // 2 :]:
        return True
    passes = []
    # Passes can have different numbers of batches, but each pass starts with number 0.
    for number, batch in dataset.enumerate().repeat(2).as_numpy_iterator():
        if number == 0:
            passes.append(collections.Counter())
        rows = len(keras.tree.flatten(batch)[-1])
        passes[-1].update(_digest(_rows(batch, slice(i, i + 1))) for i in range(rows))
    if passes[0] != passes[-1]:
        raise ValueError("the dataset gives other examples in each pass")
    return False


def with_length(dataset: tf.data.Dataset, examples: int) -> tf.data.Dataset:
    """Return a dataset with a known number of batches. Counting takes a pass.

    If the length is unknown, `fit` finds the end with a step without data. This step
    counts as an update of the optimizer, and Keras warns about it in each epoch.

    Args:
        dataset: A batched, finite `tf.data.Dataset`.
        examples: Number of examples in another pass. If this pass has a different
            number, the dataset is returned unchanged.
    """
    if count_batches(dataset) is not None:
        return dataset
    sizes = [len(keras.tree.flatten(x)[-1]) for x in dataset.as_numpy_iterator()]
    if sum(sizes) != examples:
        return dataset
    return dataset.apply(tf.data.experimental.assert_cardinality(len(sizes)))


def num_batches(data: Any) -> int:
    """Return the number of batches of an epoch. Counting can take a pass.

    Args:
        data: `Epochs`, a finite `tf.data.Dataset`, or a PyDataset.
    """
    if isinstance(data, Epochs):
        return data.batches
    count = count_batches(data)
    return sum(1 for _ in data) if count is None else count


def _tuples(arrays: tuple) -> tuple:
    """Return NumPy arrays in a structure of tuples, because tf.data stacks lists."""
    return keras.tree.lists_to_tuples(map_arrays(np.asarray, arrays))


def _rows(arrays: tuple, rows: np.ndarray | slice) -> tuple:
    return keras.tree.map_structure(lambda x: x[rows], arrays)


def _dtype(array: np.ndarray) -> Any:
    return tf.string if array.dtype.kind in "OSU" else array.dtype


def _digest(batch: tuple) -> str:
    digest = RowDigest()
    digest.update(batch)
    return digest.value()
