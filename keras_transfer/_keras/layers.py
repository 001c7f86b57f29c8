"""Private APIs of Keras for layers: tracking, trainable flags and calls."""

import contextlib
import functools
import io
from collections.abc import Callable
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

# Attributes in which Keras and TensorFlow list other attributes or the graph.
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
    """Return whether `layer` keeps its layers in graph order."""
    return layer._obj_type() in ("Functional", "Sequential")


def attributes(layer: keras.Layer) -> list[tuple[str, Any]]:
    """Return the attributes of `layer`, sorted by name, except `LISTS`."""
    return [(k, vars(layer)[k]) for k in sorted(vars(layer)) if k not in LISTS]


def own_weights(layer: keras.Layer) -> list[keras.Variable]:
    """Return the weights that `layer` owns directly, without seeds and metrics."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def flat_layers(layer: keras.Layer) -> list[keras.Layer]:
    """Return `layer` and all layers below it once, parents before their children."""
    return list({id(child): child for child in layer._flatten_layers()}.values())


@contextlib.contextmanager
def substituted(layer: keras.Layer, name: str, change: Callable) -> Iterator[None]:
    """Let `layer` read `change(weight)` for its own weight `name` in a `with` block.

    An adapter of the layer still adds its part. Keras does not track the value, as it
    would after an assignment.
    """
    weight = vars(layer)[name]
    vars(layer)[name] = change(weight)
    try:
        yield
    finally:
        vars(layer)[name] = weight


def learnable(layer: keras.Layer) -> list[keras.Variable]:
    """Return the own weights of `layer` that follow its trainable flag."""
    return list(layer._trainable_variables)


def hold(layer: keras.Layer, variables: Iterable[keras.Variable]) -> None:
    """Freeze `variables` that `layer` owns, so no trainable flag unfreezes them."""
    tracker, chosen = layer._tracker, {id(variable) for variable in variables}
    held = [v for v in layer._trainable_variables if id(v) in chosen]
    for variable in held:
        tracker.untrack(variable)
        variable.trainable = False
    # In front of the other variables, to keep the order of the weights.
    layer._non_trainable_variables[:0] = held
    tracker.stored_ids["non_trainable_variables"].update(map(id, held))


def release(layer: keras.Layer, variables: Sequence[keras.Variable]) -> None:
    """Make only these `variables`, which `layer` owns, follow its trainable flag."""
    tracker = layer._tracker
    hold(layer, learnable(layer))
    for variable in variables:
        tracker.untrack(variable)
    layer._trainable_variables[:] = variables
    tracker.stored_ids["trainable_variables"].update(map(id, variables))


@contextlib.contextmanager
def listed(layer: keras.Layer, variables: Sequence[keras.Variable]) -> Iterator[None]:
    """Within the block, list only these `variables` of `layer` as trainable."""
    trainable, rest = layer._trainable_variables, layer._non_trainable_variables
    before, chosen = (list(trainable), list(rest)), {id(v) for v in variables}
    trainable[:] = variables
    rest[:] = [variable for variable in rest if id(variable) not in chosen]
    try:
        yield
    finally:
        trainable[:], rest[:] = before


def set_flag(layer: keras.Layer, value: bool) -> None:
    """Set the trainable flag of `layer`, without the layers below it."""
    layer._trainable = value


def all_variables(model: keras.Model) -> list[keras.Variable]:
    """Return the variables that a step of a model reads, also those of its metrics."""
    lists = model.variables, model.non_trainable_variables, model.metrics_variables
    return list({id(x): x for variables in lists for x in variables}.values())


def longest_text(model: keras.Model) -> int | None:
    """Return the number of positions of a model, or None without such a limit."""
    layers = [getattr(each, "sequence_length", None) for each in flat_layers(model)]
    return min((each for each in layers if isinstance(each, int)), default=None)


def flags(model: keras.Model) -> tuple[bool, ...]:
    """Return the trainable flag of `model` and of each layer below it."""
    return tuple(layer.trainable for layer in flat_layers(model))


def set_flags(
    model: keras.Model, layers: Sequence[bool], weights: Sequence[bool]
) -> None:
    """Set the flags of all layers of `flags(model)` and of `model.weights`.

    Keras's setter would also set the flags of all layers below.
    """
    for layer, value in zip(flat_layers(model), layers, strict=True):
        layer._trainable = value
    for weight, value in zip(model.weights, weights, strict=True):
        weight.trainable = value


@contextlib.contextmanager
def flags_kept(model: keras.Model) -> Iterator[None]:
    """Restore the trainable flags of `model` and its variables after the block."""
    layers = flags(model)
    weights = [weight.trainable for weight in model.weights]
    try:
        yield
    finally:
        set_flags(model, layers, weights)


def add_child(layer: keras.Layer, name: str, child: keras.Layer) -> None:
    """Add a sublayer to a built `layer`, as its attribute `name`."""
    locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        setattr(layer, name, child)
    finally:
        layer._tracker.locked = locked


def remove_child(layer: keras.Layer, name: str) -> None:
    """Remove the sublayer that `add_child` added."""
    layer._tracker.untrack(getattr(layer, name))
    delattr(layer, name)


def inner_scope(layer: keras.Layer) -> Any:
    """Return the name scope in which `layer` makes the weights of its children."""
    return layer._open_name_scope()


def no_autocast() -> Any:
    """Return a scope in which variables are read in their own dtype.

    In a layer with mixed precision, Keras casts variables when the call reads them.
    """
    return AutocastScope(None)


def copy_mask(source: Any, target: Any) -> Any:
    """Return the tensor `target` with the Keras mask of `source`, if it has one."""
    mask = get_keras_mask(source)
    if mask is not None and target is not source:
        set_keras_mask(target, mask)
    return target


def save_as(kind: type, like: type) -> None:
    """Save objects of class `kind` under the registered name of `like`."""
    name = object_registration.GLOBAL_CUSTOM_NAMES[like]
    object_registration.GLOBAL_CUSTOM_NAMES[kind] = name


def is_legacy_format() -> bool:
    """Return whether Keras is now saving to its old format, HDF5."""
    return bool(global_state.get_global_attribute("use_legacy_config", False))


def unpickled(file: io.BytesIO) -> keras.Layer:
    """Return the layer that Keras's `__reduce__` has written, of any class."""
    return keras.Model._unpickle_model(file)


def is_random(layer: keras.Layer) -> bool:
    """Return whether `layer` itself generates random numbers."""
    # Layers of keras-cv have a generator that Keras does not track.
    return bool(layer._seed_generators) or hasattr(layer, "_random_generator")


@contextlib.contextmanager
def calls_through(layers: Iterable[keras.Layer], function: Any) -> Iterator[None]:
    """Within the block, calls of `layers` run `function(layer, call, x, ...)`."""
    layers = list(layers)
    for layer in layers:
        layer.__dict__["call"] = functools.partial(function, layer, layer.call)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["call"]


def value(variable: keras.Variable) -> np.ndarray:
    """Return the value of `variable`, on one device or several.

    Keras's own functions call np.array(variable), and NumPy 2 warns about it.
    """
    return np.asarray(ops.convert_to_tensor(variable))


def values(variables: Iterable[keras.Variable]) -> list[np.ndarray]:
    """Return copies of the values of `variables`."""
    return [np.array(value(each)) for each in variables]


def snapshot(variables: Iterable[keras.Variable]) -> list[list[np.ndarray]]:
    """Return the values of each variable on all replicas, which may differ."""
    return [[_to_numpy(part) for part in parts_of(x)] for x in variables]


def restore(
    variables: Iterable[keras.Variable], values: Iterable[Sequence[np.ndarray]]
) -> None:
    """Set `variables` to the values of `snapshot`, bit for bit."""
    for variable, arrays in zip(variables, values, strict=True):
        for part, array in zip(parts_of(variable), arrays, strict=True):
            (part if hasattr(part, "assign") else variable).assign(array)


def parts_of(variable: keras.Variable) -> Sequence:
    """Return the values of `variable` on all replicas."""
    return getattr(variable._value, "values", (variable._value,))


def _to_numpy(tensor: Any) -> np.ndarray:
    return tensor.numpy() if hasattr(tensor, "numpy") else np.array(tensor)
