"""What of a functional network its outputs depend on, and what they do not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import keras

from keras_transfer import _keras
from keras_transfer.backbones.frozen import FrozenBackbone

# A weight of theirs may be for another use of the layer than the one in the graph.
OF_TWO_USES = (keras.layers.ReversibleEmbedding,)


class Unused(NamedTuple):
    """What of a network the features read from it do not depend on.

    Args:
        weights: All of its weights of that kind.
        of_layers: Those alone that were left out before single weights were: what a
            saved model that does not name its idle weights was trained without.
    """

    weights: list[keras.Variable]
    of_layers: list[keras.Variable]


def unused(network: keras.Model, key: str | None) -> Unused:
    """Return what the output of a name, or None for the only one, does not need."""
    if key is None:
        return Unused(idle_weights(network, network.outputs), [])
    output = network.output[key]
    led = {id(weight) for weight in keras.Model(network.input, output).weights}
    of_layers = [weight for weight in network.weights if id(weight) not in led]
    return Unused(idle_weights(network, [output]), of_layers)


def idle_weights(
    network: keras.Layer, outputs: Iterable[keras.KerasTensor]
) -> list[keras.Variable]:
    """Return the weights of a functional network that `outputs` do not depend on.

    Found in the graph: layers that do not lead to the outputs, as a decoder where the
    encoder is read. Found in one trace of each kind of layer, where its code is not
    known: single weights that its call does not use, as the mask token of DINOv2. One
    that only a loss depends on, which such a layer adds, is used.
    """
    if not _graph(network):
        return []
    calls = calls_behind(outputs)
    known: dict[tuple, set[int]] = {}
    used: set[int] = set()
    for (layer, call), places in calls.items():
        if isinstance(layer, keras.Layer) and not _graph(layer):
            used |= _weights_used(layer, call, places, known)
    return [
        weight
        for weight in network.weights
        # Gradients know no integers, so those of a quantized layer say nothing.
        if id(weight) not in used and "float" in weight.dtype
    ]


def unreached_weights(model: keras.Layer) -> set[int]:
    """Return the ids of the weights in a model's graph that its outputs do not need.

    Those of layers of which no output leads to the outputs of `model`, and those that
    the model itself knows, as `TransferClassifier` does. Layers that a model only
    holds, outside of its graph, are left out: a loss may use them. Nothing is traced.
    """
    known = getattr(model, "idle_weights", None)
    idle = set() if known is None else {id(weight) for weight in known()}
    if not _graph(model):
        return idle
    outputs = keras.tree.flatten(model.outputs)
    reached = {layer for layer, _ in calls_behind(outputs)}
    graphs = [_graph(each) for each in (model, *reached) if _is_layer(each)]
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
    """Return the calls that lead to `outputs`, with the places of what they give.

    A model in the graph is opened: its own layers are called too.
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
    """Return the functional model that a layer is or that it holds frozen."""
    while isinstance(layer, FrozenBackbone):
        layer = layer.layer
    return _keras.functional(layer)


def _weights_used(
    layer: keras.Layer, call: int, places: set[int], known: dict[tuple, set[int]]
) -> set[int]:
    """Return the ids of the weights that one call of a layer depends on."""
    weights = layer.weights
    if not weights or _is_plain(layer):
        return {id(weight) for weight in weights}
    # What is switched off now may be switched on later.
    adapted = {
        id(weight)
        for each in _keras.flat_layers(layer)
        if _is_adapted(each)
        for weight in each.weights
    }
    arguments = _keras.call_arguments(layer, call)
    kind = _kind(layer, arguments, places)
    if kind not in known:
        try:
            read = _keras.weights_read(layer, arguments, places)
        except Exception:
            # A call that cannot be traced again: as if it used all. What that costs
            # is a warning of Keras, where refusing would cost the model.
            read = {id(weight) for weight in weights}
        known[kind] = {i for i, weight in enumerate(weights) if id(weight) in read}
    return adapted | {id(weights[index]) for index in known[kind]}


def _is_adapted(layer: keras.Layer) -> bool:
    """Return whether a layer belongs to an adapter, or carries one."""
    bases = (base.__module__ for base in type(layer).__mro__)
    return any(module.startswith("keras_transfer.adapters") for module in bases)


def _is_plain(layer: keras.Layer) -> bool:
    """Return whether a layer is one of Keras's own that always uses all it holds."""
    stock = getattr(keras.layers, type(layer).__name__, None) is type(layer)
    return stock and not _keras.sublayers(layer) and type(layer) not in OF_TWO_USES


def _kind(layer: keras.Layer, arguments: tuple[tuple, dict], places: set[int]) -> tuple:
    """Return what two calls must have in common to use the same weights."""
    try:
        config = {key: x for key, x in layer.get_config().items() if key != "name"}
    except Exception:  # not every layer can be saved, some of keras-hub cannot either
        config = id(layer)
    given = keras.tree.map_structure(_specification, arguments)
    weights = [(weight.name, weight.shape) for weight in layer.weights]
    return (type(layer), repr(config), repr(given), repr(weights), frozenset(places))


def _specification(value: object) -> object:
    if isinstance(value, keras.KerasTensor):
        return (value.shape, value.dtype)
    return value
