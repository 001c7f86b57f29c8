"""Turn the arrays or the dataset of a domain into an infinite stream of batches."""

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

# Most bytes in memory for a shuffle of single examples of a dataset.
SHUFFLE_BYTES = 2**29
STRING_BYTES = 2**10  # a guess, because the spec of a string has no length


@dataclass(frozen=True)
class Stream:
    """The name, the data and the spec of one domain.

    Args:
        name: "source" or "target", for messages.
        data: A structure of NumPy arrays, or a `tf.data.Dataset`.
        spec: The structure of `tf.TensorSpec`s of a dataset element. For arrays, the
            specs of one example.
    """

    name: str
    data: Any
    spec: Any

    @property
    def is_dataset(self) -> bool:
        """Whether the data is a `tf.data.Dataset`."""
        return isinstance(self.data, tf.data.Dataset)

    @property
    def sizes(self) -> set[int]:
        """The set of row counts of the arrays. Valid data has one row count."""
        return {len(each) for each in keras.tree.flatten(self.data)}

    @property
    def looks_batched(self) -> bool:
        """Whether all tensors of an element have the same first axis."""
        shapes = [each.shape for each in keras.tree.flatten(self.spec)]
        return all(shape.rank for shape in shapes) and (
            len({shape[0] for shape in shapes}) == 1
        )

    def example(self, batched: bool) -> Any:
        """Return the specs of one example. `batched` removes the batch axis."""

        def of_batch(spec: tf.TensorSpec) -> tf.TensorSpec:
            # A scalar has no batch axis.
            return tf.TensorSpec(spec.shape[1:] if spec.shape.rank else (), spec.dtype)

        return keras.tree.map_structure(of_batch, self.spec) if batched else self.spec


def read(name: str, data: Any) -> Stream:
    """Return the `data` argument of a user as a Stream.

    Raises:
        TypeError: If `data` is an iterator, of an unknown kind, ragged or sparse.
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
    """Return the number of elements, or None if it is unknown or infinite.

    If the length of a dataset is unknown, its first `least` elements are read.

    Raises:
        ValueError: If there are fewer than `least` elements.
    """
    if not stream.is_dataset:
        number = min(stream.sizes)
    else:
        number = int(stream.data.cardinality())
    known = number >= 0
    if number == tf.data.UNKNOWN_CARDINALITY:
        number = int(stream.data.take(least).reduce(0, lambda found, _: found + 1))
    if number == 0:
        raise ValueError(f"`{stream.name}` is empty. Pass at least one example.")
    if 0 < number < least:
        raise ValueError(
            f"`{stream.name}` has {number} examples, but batch_size={least}, so a "
            f"batch would repeat examples. Pass a batch_size of at most {number}."
        )
    return number if known else None


def batch_size_of(stream: Stream) -> int:
    """Return the batch size of a dataset. The first batch is read if necessary.

    Raises:
        ValueError: If the dataset is empty.
    """
    static = keras.tree.flatten(stream.spec)[0].shape[0]
    if static is not None:
        return static
    for batch in stream.data.take(1):
        return int(tf.shape(keras.tree.flatten(batch)[0])[0])
    raise ValueError(f"`{stream.name}` is empty. Pass at least one batch.")


def endless(
    stream: Stream, batch_size: int, elements: int, seed: tuple | None
) -> tf.data.Dataset:
    """Return an infinite dataset of batches from repeated passes over a domain.

    Args:
        stream: The domain. A dataset has single examples.
        batch_size: Examples in each batch. A batch can span two passes.
        elements: Largest number of elements of `stream` that an epoch reads.
        seed: Seed of the orders, or None to keep the order of `stream`. The order of a
            pass depends on the seed, the epoch number and the pass number. It does not
            depend on prefetching.
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
    with tf.device("CPU:0"):  # keeps the arrays out of accelerator memory
        arrays = keras.tree.map_structure(tf.convert_to_tensor, stream.data)
    return orders.rebatch(batch_size, drop_remainder=True).map(
        lambda chosen: keras.tree.map_structure(lambda x: tf.gather(x, chosen), arrays),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def endless_batches(stream: Stream, batch_size: int) -> tf.data.Dataset:
    """Return an infinite dataset of the batches of a domain, all of full size."""
    # A smaller last batch is filled with the first examples of the next pass.
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
        # This sets the seed of this graph only. Without it, the order would depend on
        # the global seed. A seed of 0 makes TensorFlow compare tensors in Python.
        tf.random.set_seed(1)
        return stream.data.shuffle(buffer, seed=of_pass)

    return seeds.flat_map(one_pass)


def _passes(
    draw: Callable[[np.random.Generator], Any], spec: tf.TensorSpec, seed: tuple
) -> tf.data.Dataset:
    """Return the values of `draw` for each pass. Each new iterator is a new epoch."""
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
