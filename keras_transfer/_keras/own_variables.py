"""Replace a float variable of a built layer, and put it back."""

from collections.abc import Mapping
from typing import Any

import keras
from keras.src.backend import set_keras_mask

from keras_transfer._keras.layers import learnable
from keras_transfer._keras.layers import release


def replace_weight(
    layer: keras.Layer, attribute: str, specs: Mapping[str, tuple[tuple, str]]
) -> None:
    """Remove the variable at `attribute`, and create frozen variables of zeros.

    Args:
        layer: A built layer.
        attribute: Attribute that holds the variable.
        specs: Dict from the name of a new variable to its shape and dtype. Each becomes
            an attribute of its name, and is not cast in mixed precision.
    """
    remove_weight(layer, attribute)
    with layer._open_name_scope():
        for name, (shape, dtype) in specs.items():
            _set(layer, name, _made(layer, name, shape, dtype))


def give_weight_back(
    layer: keras.Layer, attribute: str, name: str, shape: tuple
) -> keras.Variable:
    """Undo `replace_weight` for a variable of zeros, first in the layer's order."""
    with layer._open_name_scope():
        locked = layer._tracker.locked
        layer._tracker.unlock()
        try:
            variable = layer.add_weight(shape=shape, initializer="zeros", name=name)
            setattr(layer, attribute, variable)
        finally:
            layer._tracker.locked = locked
    rest = [each for each in learnable(layer) if each is not variable]
    release(layer, [variable, *rest])
    variable.trainable = True
    return variable


def remove_weight(layer: keras.Layer, attribute: str) -> None:
    """Remove the variable at `attribute` from a built layer."""
    layer._untrack_variable(getattr(layer, attribute))
    # Keras's `Layer.__delattr__` runs the garbage collector for each variable.
    super(keras.Layer, layer).__delattr__(attribute)


def with_mask(outputs: Any, mask: Any) -> Any:
    """Return `outputs` with a Keras mask, unless the mask is None."""
    if mask is not None:
        set_keras_mask(outputs, mask)
    return outputs


def _made(layer: keras.Layer, name: str, shape: tuple, dtype: str) -> keras.Variable:
    locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        return layer.add_weight(
            shape=shape,
            initializer="zeros",
            dtype=dtype,
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
            name=name,
        )
    finally:
        layer._tracker.locked = locked


def _set(layer: keras.Layer, name: str, variable: keras.Variable) -> None:
    locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        setattr(layer, name, variable)
    finally:
        layer._tracker.locked = locked
