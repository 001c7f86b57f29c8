"""Choose between two computations while a graph runs."""

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
    """Return `first()` or `second()` by `condition`, and whether nothing was lost.

    A graph contains both as branches. The losses that `layer` or a layer below adds in
    a branch, and the masks of the outputs, cannot leave the branch. They are dropped,
    and the second value is then False.
    """
    masks = []

    def watched(compute: Callable[[], Any]) -> Callable[[], Any]:
        def branch() -> Any:
            outputs = compute()
            masks.extend(map(backend.get_keras_mask, keras.tree.flatten(outputs)))
            return outputs

        return branch

    lists = [child._losses for child in flat_layers(layer)]
    if backend.in_stateless_scope():
        lists.append(backend.get_stateless_scope().losses or [])
    lengths = [len(losses) for losses in lists]
    outputs = keras.ops.cond(condition, watched(first), watched(second))
    if tf.executing_eagerly():
        return outputs, True
    added = [len(x) - length for x, length in zip(lists, lengths, strict=True)]
    for losses, length in zip(lists, lengths, strict=True):
        del losses[length:]
    return outputs, not any(added) and all(mask is None for mask in masks)
