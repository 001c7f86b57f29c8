"""Choose between two computations as a graph runs, where nothing but outputs counts."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras.src import backend

from keras_transfer._keras.layers import flat_layers


def either(
    layer: keras.Layer,
    condition: Any,
    first: Callable[[], Any],
    second: Callable[[], Any],
) -> tuple[Any, bool]:
    """Return `first()` or `second()` by `condition`, and whether that could be done.

    A graph has both as branches. Losses that `layer`, or one below it, adds in a branch
    cannot leave it, nor can the masks on its outputs. Where there are any nothing of
    them is kept.
    """
    masks = []

    def watched(compute: Callable[[], Any]) -> Callable[[], Any]:
        def branch() -> Any:
            outputs = compute()
            masks.extend(map(backend.get_keras_mask, keras.tree.flatten(outputs)))
            return outputs

        return branch

    lists = [each._losses for each in flat_layers(layer)]
    if backend.in_stateless_scope():
        lists.append(backend.get_stateless_scope().losses or [])
    lengths = [len(each) for each in lists]
    outputs = keras.ops.cond(condition, watched(first), watched(second))
    if tf.executing_eagerly():
        return outputs, True
    added = [len(x) - length for x, length in zip(lists, lengths, strict=True)]
    for losses, length in zip(lists, lengths, strict=True):
        del losses[length:]
    return outputs, not any(added) and all(each is None for each in masks)
