"""Keras's private side of layers: what they track, which of it learns, how they run."""

import contextlib
import functools
import io
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend import AutocastScope
from keras.src.backend import get_keras_mask
from keras.src.backend import set_keras_mask
from keras.src.backend.common import global_state
from keras.src.saving import object_registration

# Where Keras and TensorFlow list what other attributes hold, or a graph consists of.
LISTS = (
    *("_layers", "_tracked", "_functional", "_operations", "_operations_by_depth"),
    "_self_unconditional_checkpoint_dependencies",
    "_self_unconditional_dependency_names",
    "_self_unconditional_deferred_dependencies",
    "_self_saveable_object_factories",
)


def sublayers(layer: keras.Layer) -> list[keras.Layer]:
    """Return the direct children of `layer`, in the order Keras tracks them."""
    return list(layer._layers)


def has_graph(layer: keras.Layer) -> bool:
    """Return whether `layer` has its layers in the order of a graph."""
    return layer._obj_type() in ("Functional", "Sequential")


def attributes(layer: keras.Layer) -> list[tuple[str, Any]]:
    """Return the attributes of `layer` by name, without lists of all its layers."""
    return [(k, vars(layer)[k]) for k in sorted(vars(layer)) if k not in LISTS]


def own_weights(layer: keras.Layer) -> list[keras.Variable]:
    """Return the weights that `layer` holds itself; no seeds, no metrics."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def flat_layers(layer: keras.Layer) -> list[keras.Layer]:
    """Return `layer` and all below it once each, a parent before its children."""
    return list({id(each): each for each in layer._flatten_layers()}.values())


def learnable(layer: keras.Layer) -> list[keras.Variable]:
    """Return the weights of `layer` itself that follow its trainable flag."""
    return list(layer._trainable_variables)


def hold(layer: keras.Layer, variables: Iterable[keras.Variable]) -> None:
    """Freeze own `variables` of `layer` so that no trainable flag can thaw them."""
    tracker, chosen = layer._tracker, {id(each) for each in variables}
    held = [each for each in layer._trainable_variables if id(each) in chosen]
    for variable in held:
        tracker.untrack(variable)
        variable.trainable = False
    # In front of the others, so that the order of the weights stays.
    layer._non_trainable_variables[:0] = held
    tracker.stored_ids["non_trainable_variables"].update(map(id, held))


def release(layer: keras.Layer, variables: Sequence[keras.Variable]) -> None:
    """Let own `variables` of `layer`, and no others, follow its flag, in this order."""
    tracker = layer._tracker
    hold(layer, learnable(layer))
    for variable in variables:
        tracker.untrack(variable)
    layer._trainable_variables[:] = variables
    tracker.stored_ids["trainable_variables"].update(map(id, variables))


@contextlib.contextmanager
def listed(layer: keras.Layer, variables: Sequence[keras.Variable]) -> Iterator[None]:
    """Within the block own `variables` of `layer` are in the list of what learns."""
    learning, rest = layer._trainable_variables, layer._non_trainable_variables
    was, chosen = (list(learning), list(rest)), {id(each) for each in variables}
    learning[:] = variables
    rest[:] = [each for each in rest if id(each) not in chosen]
    try:
        yield
    finally:
        learning[:], rest[:] = was


def set_flag(layer: keras.Layer, value: bool) -> None:
    """Set the trainable flag of `layer` and of nothing below it."""
    layer._trainable = value


def flags(model: keras.Model) -> tuple[bool, ...]:
    """Return the trainable flag of `model` and of each layer below it."""
    return tuple(layer.trainable for layer in flat_layers(model))


def set_flags(
    model: keras.Model, layers: Sequence[bool], weights: Sequence[bool]
) -> None:
    """Set the flags of `flags(model)` and of `model.weights`, each by itself.

    Keras's setter would hand the flag of a layer down to all below it.
    """
    for layer, value in zip(flat_layers(model), layers, strict=True):
        layer._trainable = value
    for weight, value in zip(model.weights, weights, strict=True):
        weight.trainable = value


@contextlib.contextmanager
def flags_kept(model: keras.Model) -> Iterator[None]:
    """Give `model` its trainable flags back at the end, those of variables too."""
    layers = flags(model)
    weights = [weight.trainable for weight in model.weights]
    try:
        yield
    finally:
        set_flags(model, layers, weights)


def add_child(layer: keras.Layer, name: str, child: keras.Layer) -> None:
    """Give a built `layer` one more sublayer, as its attribute `name`."""
    locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        setattr(layer, name, child)
    finally:
        layer._tracker.locked = locked


def remove_child(layer: keras.Layer, name: str) -> None:
    """Take away what `add_child` gave."""
    layer._tracker.untrack(getattr(layer, name))
    delattr(layer, name)


def inner_scope(layer: keras.Layer) -> Any:
    """Return the name scope in which `layer` makes its children's weights."""
    return layer._open_name_scope()


def no_autocast() -> Any:
    """Return a scope in which variables are read in their own dtype.

    In the call of a layer of mixed precision Keras casts them as they are read.
    """
    return AutocastScope(None)


def copy_mask(source: Any, target: Any) -> Any:
    """Return the tensor `target` with the Keras mask of `source`, if it has one."""
    mask = get_keras_mask(source)
    if mask is not None and target is not source:
        set_keras_mask(target, mask)
    return target


def save_as(kind: type, like: type) -> None:
    """Have objects of class `kind` saved under the registered name of `like`."""
    name = object_registration.GLOBAL_CUSTOM_NAMES[like]
    object_registration.GLOBAL_CUSTOM_NAMES[kind] = name


def is_legacy_format() -> bool:
    """Return whether Keras now asks for configs for a file of its old format, HDF5."""
    return bool(global_state.get_global_attribute("use_legacy_config", False))


def unpickled(file: io.BytesIO) -> keras.Layer:
    """Return what Keras's own `__reduce__` has written, of whatever class it is."""
    return keras.Model._unpickle_model(file)


def is_random(layer: keras.Layer) -> bool:
    """Return whether `layer` itself draws random numbers."""
    # Layers of keras-cv have a generator that Keras does not know of.
    return bool(layer._seed_generators) or hasattr(layer, "_random_generator")


@contextlib.contextmanager
def calls_through(layers: Iterable[keras.Layer], function: Any) -> Iterator[None]:
    """Within the block calls of `layers` go through `function(layer, call, x, ...)`."""
    layers = list(layers)
    for layer in layers:
        layer.__dict__["call"] = functools.partial(function, layer, layer.call)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["call"]


def value(variable: keras.Variable) -> np.ndarray:
    """Return what `variable` holds, on one device or several.

    Keras's own ways go through np.array(variable), which NumPy 2 warns about.
    """
    return np.asarray(ops.convert_to_tensor(variable))


def snapshot(variables: Iterable[keras.Variable]) -> list[list[np.ndarray]]:
    """Return what each variable holds, on each replica: they may differ."""
    return [[_to_numpy(part) for part in _parts(each)] for each in variables]


def restore(
    variables: Iterable[keras.Variable], values: Iterable[Sequence[np.ndarray]]
) -> None:
    """Give `variables` what `snapshot` returned, bit for bit."""
    for variable, arrays in zip(variables, values, strict=True):
        for part, array in zip(_parts(variable), arrays, strict=True):
            (part if hasattr(part, "assign") else variable).assign(array)


def _parts(variable: keras.Variable) -> Sequence:
    return getattr(variable._value, "values", (variable._value,))


def _to_numpy(tensor: Any) -> np.ndarray:
    return tensor.numpy() if hasattr(tensor, "numpy") else np.array(tensor)
