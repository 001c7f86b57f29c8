"""Find the weights of a functional network that its outputs do not depend on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import keras

from keras_transfer import _keras
from keras_transfer.backbones.frozen import FrozenBackbone

# Layers with two uses. A weight may serve only the use that is not in the graph.
OF_TWO_USES = (keras.layers.ReversibleEmbedding,)


class Unused(NamedTuple):
    """The weights of a network that its features do not depend on.

    Args:
        weights: All these weights.
        of_layers: Only the weights of whole layers without influence. Old versions
            left out only these weights in training, and did not list them in files.
    """

    weights: list[keras.Variable]
    of_layers: list[keras.Variable]


def unused(network: keras.Model, key: str | None) -> Unused:
    """Return the weights that an output does not need; key None is the only output."""
    if key is None:
        return Unused(idle_weights(network, network.outputs), [])
    output = network.output[key]
    needed = {id(weight) for weight in keras.Model(network.input, output).weights}
    of_layers = [weight for weight in network.weights if id(weight) not in needed]
    return Unused(idle_weights(network, [output]), of_layers)


def idle_weights(
    network: keras.Layer, outputs: Iterable[keras.KerasTensor]
) -> list[keras.Variable]:
    """Return the weights of a functional network that `outputs` do not depend on.

    The graph shows the layers that do not lead to the outputs, such as a decoder if
    only the encoder's output is used. For layers that are not plain Keras layers, one
    trace of each kind shows the single weights that its call does not use, such as the
    mask token of DINOv2. A weight that only affects an added loss counts as used.
    """
    if not _graph(network):
        return []
    calls = calls_behind(outputs)
    results: dict[tuple, set[int]] = {}
    used: set[int] = set()
    for (layer, call), places in calls.items():
        if isinstance(layer, keras.Layer) and not _graph(layer):
            used |= _weights_used(layer, call, places, results)
    return [
        weight
        for weight in network.weights
        # Integer weights of a quantized layer have no gradients to check.
        if id(weight) not in used and "float" in weight.dtype
    ]


def unreached_weights(model: keras.Layer) -> set[int]:
    """Return the ids of the weights in a model's graph that its outputs do not need.

    These are the weights of layers that do not lead to an output of `model`, and the
    weights that the model's own `idle_weights` returns, as in `TransferClassifier`.
    Layers outside the graph are left out, because a loss may use them. Nothing is
    traced.
    """
    idle_of_model = getattr(model, "idle_weights", None)
    idle = set() if idle_of_model is None else {id(w) for w in idle_of_model()}
    if not _graph(model):
        return idle
    outputs = keras.tree.flatten(model.outputs)
    reached = {layer for layer, _ in calls_behind(outputs)}
    graphs = [_graph(layer) for layer in (model, *reached) if _is_layer(layer)]
    within = [layer for graph in graphs if graph for layer in graph.layers]
    used = {
        id(weight)
        for layer in reached
        if _is_layer(layer) and not _graph(layer)
        for weight in layer.weights
    }
    return idle | {
        id(weight)
        for layer in within
        if layer not in reached
        for weight in layer.weights
        if id(weight) not in used
    }


def calls_behind(
    outputs: Iterable[keras.KerasTensor],
) -> dict[tuple[object, int], set[int]]:
    """Return the calls that lead to `outputs`, each with its used output indices.

    The calls inside nested models are included.
    """
    calls: dict[tuple[object, int], set[int]] = {}
    waiting = list(outputs)
    while waiting:
        tensor = waiting.pop()
        operation, call, inputs = _keras.source(tensor)
        place = _keras.output_index(tensor)
        places = calls.setdefault((operation, call), set())
        if place in places:
            continue
        if not places:
            waiting += inputs
        places.add(place)
        graph = _graph(operation) if _is_layer(operation) else None
        if graph:
            waiting.append(graph.outputs[place])
    return calls


def _is_layer(operation: object) -> bool:
    return isinstance(operation, keras.Layer)


def _graph(layer: keras.Layer) -> keras.Model | None:
    """Return the functional model that a layer is, or that a FrozenBackbone wraps."""
    while isinstance(layer, FrozenBackbone):
        layer = layer.layer
    return _keras.functional(layer)


def _weights_used(
    layer: keras.Layer, call: int, places: set[int], results: dict[tuple, set[int]]
) -> set[int]:
    """Return the ids of the weights that one call of a layer depends on."""
    weights = layer.weights
    if not weights or _is_plain(layer):
        return {id(weight) for weight in weights}
    # Adapters count as used, because one that is off now may be on later.
    adapted = {
        id(weight)
        for part in _keras.flat_layers(layer)
        if _is_adapted(part)
        for weight in part.weights
    }
    arguments = _keras.call_arguments(layer, call)
    kind = _kind(layer, arguments, places)
    if kind not in results:
        try:
            read = _keras.weights_read(layer, arguments, places)
        except Exception:
            # If the call cannot be traced again, all weights count as used. Keras then
            # warns at most. An error here would make the model unusable.
            read = {id(weight) for weight in weights}
        results[kind] = {i for i, weight in enumerate(weights) if id(weight) in read}
    return adapted | {id(weights[index]) for index in results[kind]}


def _is_adapted(layer: keras.Layer) -> bool:
    """Return whether a layer is part of an adapter or has an adapter."""
    bases = (base.__module__ for base in type(layer).__mro__)
    return any(module.startswith("keras_transfer.adapters") for module in bases)


def _is_plain(layer: keras.Layer) -> bool:
    """Return whether a layer is a Keras layer that always uses all its weights."""
    stock = getattr(keras.layers, type(layer).__name__, None) is type(layer)
    return stock and not _keras.sublayers(layer) and type(layer) not in OF_TWO_USES


def _kind(layer: keras.Layer, arguments: tuple[tuple, dict], places: set[int]) -> tuple:
    """Return a key that is equal for two calls that use the same weights."""
    try:
        config = {key: x for key, x in layer.get_config().items() if key != "name"}
    except Exception:  # some layers, also in keras-hub, have no config
        config = id(layer)
    given = keras.tree.map_structure(_specification, arguments)
    weights = [(weight.name, weight.shape) for weight in layer.weights]
    return (type(layer), repr(config), repr(given), repr(weights), frozenset(places))


def _specification(value: object) -> object:
    if isinstance(value, keras.KerasTensor):
        return (value.shape, value.dtype)
    return value
