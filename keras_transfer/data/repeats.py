"""What a dataset gives in each pass: how many batches, which examples, which order."""

import collections

import keras
import tensorflow as tf

from keras_transfer.backbones.fingerprint import RowDigest

FIRST = 8  # batches of each pass: one may be spared by augmentation that is rare


def same_order(dataset: tf.data.Dataset) -> bool:
    """Return whether two passes over a batched dataset begin alike.

    Args:
        dataset: A batched, finite `tf.data.Dataset`.

    Returns:
        False if the examples are the same, in another order.

    Raises:
        ValueError: If the examples themselves differ, since it augments at random, or
            cannot be compared, since they are ragged or sparse.
    """
    if not all(
        isinstance(each, tf.TensorSpec)
        for each in keras.tree.flatten(dataset.element_spec)
    ):
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
        passes[-1].update(_digest(_row(batch, i)) for i in range(rows))
    if passes[0] != passes[-1]:
        raise ValueError("the dataset gives other examples in each pass")
    return False


def with_length(dataset: tf.data.Dataset, examples: int) -> tf.data.Dataset:
    """Return a dataset that knows its number of batches; to count them takes a pass.

    Of one that does not know it, `fit` finds the end by a step without data, which
    counts as an update of the optimizer, and Keras warns of it in each epoch.

    Args:
        dataset: A batched, finite `tf.data.Dataset`.
        examples: Their number in another pass. Where it differs from that in this one,
            the dataset is returned as it is.
    """
    if int(dataset.cardinality()) >= 0:
        return dataset
    sizes = [len(keras.tree.flatten(x)[-1]) for x in dataset.as_numpy_iterator()]
    if sum(sizes) != examples:
        return dataset
    return dataset.apply(tf.data.experimental.assert_cardinality(len(sizes)))


def _row(batch: tuple, number: int) -> tuple:
    return keras.tree.map_structure(lambda x: x[number : number + 1], batch)


def _digest(batch: tuple) -> str:
    digest = RowDigest()
    digest.update(batch)
    return digest.value()
