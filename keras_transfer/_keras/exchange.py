"""Let a layer compute with other variables than its own, for the time of a call."""

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

# What Keras lists of a layer, in place of what the layer computes with.
LISTS = ("_trainable_variables", "_non_trainable_variables")

# How many calls are under way for each key, and what they have exchanged: replicas
# call one layer in turns, and a turn may end in the midst of a call.
_running: weakref.WeakKeyDictionary[Any, list] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


@contextlib.contextmanager
def exchanged(
    key: Any,
    pairs: Sequence[tuple[keras.Layer, keras.Variable, keras.Variable]],
    settings: Sequence[tuple[keras.Layer, Mapping[str, Any]]] = (),
) -> Iterator[None]:
    """Within the block each layer has the second variable in place of its own first.

    Keras's lists of the layer's weights stay as they are.

    Args:
        key: What the exchange is for; the same one may be under way several times.
        pairs: Layers, each with a variable of its own and the one to compute with.
        settings: Layers, each with values of plain attributes.
    """
    with _lock:
        state = _running.setdefault(key, [0, []])
        if state[0] == 0:
            found = [x for layer, own, _ in pairs for x in places_of(layer, own)]
            news = [new for layer, own, new in pairs for _ in places_of(layer, own)]
            olds = [container[place] for container, place in found]
            for layer, values in settings:
                for name, value in values.items():
                    found.append((vars(layer), name))
                    olds.append(vars(layer)[name])
                    news.append(value)
            state[1] = list(zip(found, olds, strict=True))
            for (container, place), new in zip(found, news, strict=True):
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
    """Return where `layer` keeps a variable: container and key, attributes first."""
    found = []
    for name, value in vars(layer).items():
        if name in LISTS or name.startswith("_self_"):
            continue
        if value is variable:
            found.append((vars(layer), name))
        elif isinstance(value, list):
            found += [(value, i) for i, x in enumerate(value) if x is variable]
        elif isinstance(value, dict):
            found += [(value, key) for key, x in value.items() if x is variable]
    return found


def is_training(default: object = None) -> bool:
    """Return whether the layer that is called now is called for training.

    Args:
        default: The call's own argument, where it has one.
    """
    if default is None:
        context = global_state.get_global_attribute("current_call_ctx")
        default = getattr(context, "training", None)
    return isinstance(default, bool | int) and bool(default)


def value_now(variable: keras.Variable) -> np.ndarray:
    """Return what `variable` holds, also while a graph is traced."""
    known = variable.value  # in a stateless scope what that says
    if isinstance(known, tf.Tensor):
        known = tf.get_static_value(known)
        if known is not None:
            return np.asarray(known)
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
    """Return a new weight of `layer` that is what `variable` is to its own layer."""
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
    # Past Keras's own lists, which would track the variable as one more weight.
    if isinstance(container, list):
        list.__setitem__(container, place, value)
    else:
        dict.__setitem__(container, place, value)
