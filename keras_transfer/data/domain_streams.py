"""One domain as an endless stream of full batches, out of arrays or a dataset."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.data.examples import check_dense
from keras_transfer.data.examples import DATASET
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import map_arrays

# What a shuffle of single examples of a dataset holds in memory, at the most.
SHUFFLE_BYTES = 2**29
STRING_BYTES = 2**10  # a guess: the examples of a dataset do not tell


@dataclass(frozen=True)
class Stream:
    """One domain: its name in messages, what it is made of, and what it yields.

    Args:
        name: "source" or "target", for messages.
        data: A structure of NumPy arrays, or a `tf.data.Dataset`.
        spec: The structure of `tf.TensorSpec`s of an element of `data`; of arrays,
            that of one example.
    """

    name: str
    data: Any
    spec: Any

    @property
    def is_dataset(self) -> bool:
        """Whether it is a `tf.data.Dataset`."""
        return isinstance(self.data, tf.data.Dataset)

    @property
    def sizes(self) -> set[int]:
        """The numbers of rows of its arrays, which should be one."""
        return {len(each) for each in keras.tree.flatten(self.data)}

    @property
    def looks_batched(self) -> bool:
        """Whether all of an element has one and the same leading axis."""
        shapes = [each.shape for each in keras.tree.flatten(self.spec)]
        return all(shape.rank for shape in shapes) and (
            len({shape[0] for shape in shapes}) == 1
        )

    def example(self, batched: bool) -> Any:
        """Return the specs of one example, of a dataset that is `batched` or not."""

        def of_batch(spec: tf.TensorSpec) -> tf.TensorSpec:
            # A scalar has no batch axis to take away.
            return tf.TensorSpec(spec.shape[1:] if spec.shape.rank else (), spec.dtype)

        return keras.tree.map_structure(of_batch, self.spec) if batched else self.spec


def read(name: str, data: Any) -> Stream:
    """Return a Stream of what a user passes.

    Raises:
        TypeError: If it is an iterator, of an unknown kind, ragged or sparse.
    """
    if kind_of(data, name, x_alone=True, py_dataset=False) == DATASET:
        check_dense(data.element_spec, name)
        return Stream(name, data, data.element_spec)
    arrays = keras.tree.lists_to_tuples(map_arrays(np.asarray, data))
    spec = keras.tree.map_structure(
        lambda x: tf.TensorSpec(x.shape[1:], _dtype(x)), arrays
    )
    return Stream(name, arrays, spec)


def count(stream: Stream, least: int) -> int | None:
    """Return the number of its elements, or None if it is not known or has no end.

    Raises:
        ValueError: If there are fewer than `least`; for that the first are read of a
            dataset that does not know.
    """
    if not stream.is_dataset:
        number = min(stream.sizes)
    else:
        number = int(stream.data.cardinality())
    known = number >= 0
    if number == tf.data.UNKNOWN_CARDINALITY:
        number = int(stream.data.take(least).reduce(0, lambda found, _: found + 1))
    if number == 0:
        raise ValueError(f"`{stream.name}` is empty: it has no example.")
    if 0 < number < least:
        raise ValueError(
            f"`{stream.name}` has {number} examples, but batch_size={least}: an "
            "example would be twice in a batch. Pass a batch_size of at most that."
        )
    return number if known else None


def batch_size_of(stream: Stream) -> int:
    """Return the size of the batches of a dataset; the first is read if need be.

    Raises:
        ValueError: If it is empty.
    """
    static = keras.tree.flatten(stream.spec)[0].shape[0]
    if static is not None:
        return static
    for batch in stream.data.take(1):
        return int(tf.shape(keras.tree.flatten(batch)[0])[0])
    raise ValueError(f"`{stream.name}` is empty: it has no batch.")


def endless(
    stream: Stream, batch_size: int, elements: int, seed: tuple | None
) -> tf.data.Dataset:
    """Return batches of `batch_size` without end, pass after pass.

    Args:
        stream: The domain; of a dataset, single examples.
        batch_size: Examples a batch. A batch may run over the end of a pass.
        elements: How many elements of `stream` an epoch reads, at the most.
        seed: Where the orders come from; None keeps the order of `stream`. The order
            of a pass follows from this, the number of the epoch and that of the pass
            in it, so that it does not depend on what was read ahead before.
    """
    if stream.is_dataset:
        flat = stream.data.repeat()
        if seed is not None:
            flat = _shuffled(stream, elements, seed)
        return flat.batch(batch_size, drop_remainder=True)
    rows = min(stream.sizes)
    orders = _passes(
        lambda random: np.arange(rows) if seed is None else random.permutation(rows),
        tf.TensorSpec((rows,), tf.int64),
        seed or (0,),
    )
    with tf.device("CPU:0"):  # or they would fill the memory of the accelerator
        arrays = keras.tree.map_structure(tf.convert_to_tensor, stream.data)
    return orders.rebatch(batch_size, drop_remainder=True).map(
        lambda chosen: keras.tree.map_structure(lambda x: tf.gather(x, chosen), arrays),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def endless_batches(stream: Stream, batch_size: int) -> tf.data.Dataset:
    """Return the batches of a dataset without end, each of them full."""
    # A last batch that is not full goes on with the first examples of the next pass.
    return stream.data.repeat().rebatch(batch_size, drop_remainder=True)


def _shuffled(stream: Stream, elements: int, seed: tuple) -> tf.data.Dataset:
    size = sum(
        STRING_BYTES if each.dtype == tf.string else each.dtype.size * _items(each)
        for each in keras.tree.flatten(stream.spec)
    )
    buffer = min(elements, max(1, SHUFFLE_BYTES // max(1, size)))
    seeds = _passes(
        lambda random: random.integers(2**31), tf.TensorSpec((), tf.int64), seed
    )

    def one_pass(of_pass: tf.Tensor) -> tf.data.Dataset:
        # The seed of this graph alone. TensorFlow mixes it into the order, which
        # would else follow the global seed, and compares it in Python if that is 0.
        tf.random.set_seed(1)
        return stream.data.shuffle(buffer, seed=of_pass)

    return seeds.flat_map(one_pass)


def _passes(
    draw: Callable[[np.random.Generator], Any], spec: tf.TensorSpec, seed: tuple
) -> tf.data.Dataset:
    """Return what `draw` makes for each pass; each iterator is the next epoch."""
    epochs = itertools.count()

    def one_epoch() -> Iterator[Any]:
        epoch = next(epochs)
        for number in itertools.count():
            yield draw(np.random.default_rng((*seed, epoch, number)))

    return tf.data.Dataset.from_generator(one_epoch, output_signature=spec)


def _items(spec: tf.TensorSpec) -> int:
    return math.prod(spec.shape.as_list())


def _dtype(array: np.ndarray) -> tf.DType:
    return tf.string if array.dtype.kind in "OSU" else tf.as_dtype(array.dtype)
