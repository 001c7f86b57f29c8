"""The outputs of the blocks of a backbone, from the stem to the last block."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence

import keras

from keras_transfer import _keras
from keras_transfer.backbones.block_spots import block_spots
from keras_transfer.backbones.block_spots import Spot
from keras_transfer.backbones.block_spots import spots_inside
from keras_transfer.backbones.features import chosen_output
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.backbones.opened_layers import open_layers

PADDING = tuple(getattr(keras.layers, f"ZeroPadding{n}D") for n in (1, 2, 3))


def block_outputs(
    network: keras.Model, *, repeated: bool = False
) -> dict[str, keras.KerasTensor]:
    """Return the last tensor that leaves each layer group of a functional network.

    A tensor belongs to the last group that it was computed with. It leaves the group if
    a later group uses it, or if it is the output that `features` reads. If several
    tensors leave, as in a network with skip connections, the last one counts, but not
    - one that a later layer takes in addition to another one, such as a bias of the
      positions or a mask, and
    - one that only a layer without weights made of another one, such as the padded
      or pooled copy of a branch, or that is only padded for the next block.

    Layers that hold several groups, such as the encoder of a ViT or a nested model, are
    opened, so each of their groups has an output too.

    Args:
        network: A functional or Sequential model with weights.
        repeated: Whether a group that runs several times, such as the shared layers
            of ALBERT, has an output for each time, named `group/1`, `group/2`.
            Defaults to False: only the last time.

    Returns:
        Dict from names of groups to symbolic tensors, in the order of the groups.

    Raises:
        ValueError: If the network is not functional, or has several outputs.
    """
    graph = _keras.functional(network)
    if graph is None:
        raise ValueError(
            f"The network '{network.name}' is not functional, so its blocks have no "
            "outputs that can be read. Build it as keras.Model(inputs, outputs)."
        )
    groups = layer_groups(network)
    key = chosen_output(graph.output, "auto", network, network.name)
    graph = open_layers(graph, groups, states_of)
    end = graph.outputs[0] if key is None else graph.output[key]
    states = states_of([end], groups)
    times: dict[int, int] = {}
    for place, _ in states:
        times[place] = times.get(place, 0) + 1
    if not repeated:
        return {groups[place].name: states[place, t - 1] for place, t in times.items()}
    return {
        groups[place].name + (f"/{time + 1}" if times[place] > 1 else ""): state
        for (place, time), state in states.items()
    }


def states_of(
    ends: Sequence[keras.KerasTensor], groups: LayerGroups
) -> dict[Spot, keras.KerasTensor]:
    """Return the states on the way to `ends`, by group and time, in this order.

    Args:
        ends: Symbolic tensors.
        groups: The layer groups of a model that contains all layers before `ends`.
    """
    spots = block_spots(ends, groups)
    steps = {call[:2]: step for step, call in enumerate(spots.order)}
    leaving: dict[Spot, list] = {}
    for end in ends:
        leaving.setdefault(spots.of(end), []).append(end)
    beside: set[int] = set()
    for operation, call, inputs in spots.order:
        here, taken = spots.of_call[operation, call], {}
        for tensor in _main_first(operation, call, inputs):
            spot = spots.of(tensor)
            if spot < here:
                leaving.setdefault(spot, []).append(tensor)
                # The first argument is the state; the others come in addition to it.
                if taken.setdefault(spot, tensor) is not tensor:
                    beside.add(id(tensor))

    def last(tensors: list) -> keras.KerasTensor:
        tensors = [x for x in tensors if id(x) not in beside] or tensors
        known = set(map(id, tensors))
        tensors = [x for x in tensors if not _made_of(x, known, spots.of)]

        def step(tensor: keras.KerasTensor) -> tuple[int, int]:
            return steps[_keras.source(tensor)[:2]], -_keras.output_index(tensor)

        state = max(tensors, key=step)
        while isinstance(_keras.source(state)[0], PADDING):
            (state,) = _keras.source(state)[2]
        return state

    states = {spot: last(tensors) for spot, tensors in leaving.items()}
    for operation, call, _ in spots.order:
        outputs = _keras.results(operation, call)
        for index, spot in spots_inside(operation).items():
            states.setdefault(spot, outputs[index])
    return {spot: states[spot] for spot in sorted(states) if spot[0] >= 0}


def _main_first(operation: object, call: int, inputs: list) -> list:
    """Return the inputs of a call in the order of its arguments."""
    known = {id(tensor) for tensor in inputs}
    args, kwargs = _keras.call_arguments(operation, call)
    given = [*args, *kwargs.values()]
    flat = [x for each in given for x in keras.tree.flatten(each) if id(x) in known]
    return flat if len(flat) == len(inputs) else inputs


def _made_of(tensor: keras.KerasTensor, known: set[int], spot: Callable) -> bool:
    """Return whether layers without weights made a tensor of another one in `known`."""
    waiting = [tensor]
    while waiting:
        operation, _, inputs = _keras.source(waiting.pop())
        if getattr(operation, "weights", ()):
            continue
        same = [x for x in inputs if spot(x) == spot(tensor)]
        if any(id(x) in known for x in same):
            return True
        waiting += same
    return False
