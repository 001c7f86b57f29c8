"""OpenedLayer: a layer that holds several blocks, as a graph of these blocks."""

from __future__ import annotations

from collections.abc import Callable

import keras

from keras_transfer import _keras
from keras_transfer.backbones.block_spots import block_spots
from keras_transfer.backbones.block_spots import Spot
from keras_transfer.backbones.block_spots import spots_inside
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.backbones.output_of import BackbonePart


@keras.saving.register_keras_serializable(package="keras_transfer")
class OpenedLayer(BackbonePart):
    """The layers of a layer that holds several blocks, with the states as outputs.

    Its outputs are a list of the states, and the outputs of the layer. `spots_inside`
    has the group and the time of each output. It is read while
    `kt.backbones.hidden_states` builds its model, and is not saved.
    """

    spots_inside: dict[int, Spot] = {}


def open_layers(
    graph: keras.Model, groups: LayerGroups, states_of: Callable
) -> keras.Model:
    """Return a graph in which the layers that hold several groups are opened.

    A layer is called with symbolic tensors, which gives the graph of the layers that
    it calls. The layers are shared, not copied. A layer stays as it is if it has
    weights of its own or cannot be called in this way. The states of its groups are
    then not visible, except for the last one.

    Args:
        graph: A functional model.
        groups: The layer groups of the model that `graph` belongs to.
        states_of: `block_outputs.states_of`, which imports this file.

    Returns:
        The graph itself if there is nothing to open.
    """
    if not any(_holds_several(layer, groups) for layer in graph.layers):
        return graph
    opened: dict[int, object] = {}

    def call(layer: object, *args: object, **kwargs: object) -> object:
        if not _holds_several(layer, groups):
            return layer(*args, **kwargs)
        if id(layer) not in opened:
            opened[id(layer)] = _opened(layer, args, kwargs, groups, states_of)
        tensors = keras.tree.flatten((args, _tensors_of(kwargs)))
        part = opened[id(layer)]
        return layer(*args, **kwargs) if part is None else part(tensors)[1]

    return keras.models.clone_model(
        graph,
        input_tensors=graph.input,
        clone_function=lambda layer: layer,
        call_function=call,
    )


def _holds_several(layer: object, groups: LayerGroups) -> bool:
    if not isinstance(layer, keras.Layer) or spots_inside(layer):
        return False
    return len({groups.position(weight) for weight in layer.weights}) > 1


def _tensors_of(kwargs: dict) -> dict:
    return {k: v for k, v in kwargs.items() if isinstance(v, keras.KerasTensor)}


def _opened(
    layer: keras.Layer,
    args: tuple,
    kwargs: dict,
    groups: LayerGroups,
    states_of: Callable,
) -> keras.Layer | None:
    """Return the graph of a layer that was called with these arguments, or None."""
    if isinstance(layer, FrozenBackbone):
        inner = _opened(layer.layer, args, kwargs, groups, states_of)
        return inner and FrozenBackbone(inner, name=layer.name)
    tensors = _tensors_of(kwargs)
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(batch_shape=x.shape, dtype=x.dtype), (args, tensors)
    )
    own = _keras.functional(layer)
    try:
        outputs = layer.call(*inputs[0], **kwargs | inputs[1])
        graph = keras.Model(keras.tree.flatten(inputs), outputs, name=layer.name)
    except Exception:  # a layer can raise any error on symbolic tensors
        return None
    complete = {id(x) for x in graph.weights} == {id(x) for x in layer.weights}
    if own is None and not complete:
        return None  # it has weights of its own, which are in no layer of the graph
    graph = open_layers(graph, groups, states_of)
    ends = keras.tree.flatten(graph.output)
    states = states_of(ends, groups)
    part = OpenedLayer(
        graph.inputs, [list(states.values()), graph.output], name=layer.name
    )
    spots = [*states, *map(block_spots(ends, groups).of, ends)]
    part.spots_inside = dict(enumerate(spots))
    return part
