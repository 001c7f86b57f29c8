"""Exchange the variables of a layer during a call."""

import contextlib
import threading
import weakref
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state

from keras_transfer._keras.backends import on_jax
from keras_transfer._keras.jax_fit import value_in_fit

# Keras's lists of the weights of a layer, which the layer does not compute with.
LISTS = ("_trainable_variables", "_non_trainable_variables")

# For each key, the number of running calls and their exchanged values. Replicas call
# one layer in turns, and a turn may end in the middle of a call.
_running: weakref.WeakKeyDictionary[Any, list] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


@contextlib.contextmanager
def exchanged(
    key: Any,
    pairs: Sequence[tuple[keras.Layer, keras.Variable, keras.Variable]],
    settings: Sequence[tuple[keras.Layer, Mapping[str, Any]]] = (),
) -> Iterator[None]:
    """Within the block, replace variables and attributes of layers.

    Keras's lists of the weights of a layer do not change.

    Args:
        key: Object that identifies the exchange. Blocks with the same key may overlap.
        pairs: Tuples of a layer, its own variable, and the variable that replaces it.
        settings: Tuples of a layer and the values of its plain attributes.
    """
    with _lock:
        state = _running.setdefault(key, [0, []])
        if state[0] == 0:
            places = [x for layer, own, _ in pairs for x in places_of(layer, own)]
            after = [new for layer, own, new in pairs for _ in places_of(layer, own)]
            before = [container[place] for container, place in places]
            for layer, values in settings:
                for name, value in values.items():
                    places.append((vars(layer), name))
                    before.append(vars(layer)[name])
                    after.append(value)
            state[1] = list(zip(places, before, strict=True))
            for (container, place), new in zip(places, after, strict=True):
                _put(container, place, new)
        state[0] += 1
    try:
        yield
    finally:
        with _lock:
            state[0] -= 1
            if state[0] == 0:
                for (container, place), old in state[1]:
                    _put(container, place, old)
                state[1] = []


def places_of(layer: keras.Layer, variable: keras.Variable) -> list[tuple]:
    """Return the (container, key) pairs where `layer` keeps a variable."""
    places = []
    for name, value in vars(layer).items():
        if name in LISTS or name.startswith("_self_"):
            continue
        if value is variable:
            places.append((vars(layer), name))
        elif isinstance(value, list):
            places += [(value, i) for i, x in enumerate(value) if x is variable]
        elif isinstance(value, dict):
            places += [(value, key) for key, x in value.items() if x is variable]
    return places


def is_training(default: object = None) -> bool:
    """Return whether the current call of a layer is in training.

    Args:
        default: The `training` argument of the call, or None to read it from Keras.
    """
    if default is None:
        context = global_state.get_global_attribute("current_call_ctx")
        default = getattr(context, "training", None)
    return isinstance(default, bool | int) and bool(default)


def value_now(variable: keras.Variable) -> np.ndarray:
    """Return the value of `variable`, also while a graph is traced."""
    if on_jax():
        return np.asarray(value_in_fit(variable))
    value = variable.value  # in a stateless scope, the value that the scope defines
    if isinstance(value, tf.Tensor):
        value = tf.get_static_value(value)
        if value is not None:
            return np.asarray(value)
    with tf.init_scope():
        return np.asarray(tf.convert_to_tensor(variable._value))


def weight_like(
    layer: keras.Layer,
    variable: keras.Variable,
    *,
    name: str,
    shape: Sequence[int],
    initializer: Any,
    trainable: bool,
) -> keras.Variable:
    """Return a new weight of `layer` with the settings of `variable`."""
    return layer.add_weight(
        shape=tuple(shape),
        initializer=initializer,
        dtype=variable.dtype,
        trainable=trainable,
        autocast=variable._autocast,
        regularizer=variable.regularizer,
        constraint=variable.constraint,
        aggregation=variable.aggregation,
        name=name,
    )


def _put(container: Any, place: Any, value: Any) -> None:
    # Keras's own containers would track the variable as an additional weight.
    if isinstance(container, list):
        list.__setitem__(container, place, value)
    else:
        dict.__setitem__(container, place, value)
