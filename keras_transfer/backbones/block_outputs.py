"""The outputs of the blocks of a backbone, from the stem to the last block."""

from __future__ import annotations

from collections.abc import Iterator

import keras

from keras_transfer import _keras
from keras_transfer.backbones.features import chosen_output
from keras_transfer.backbones.groups import layer_groups


def block_outputs(network: keras.Model) -> dict[str, keras.KerasTensor]:
    """Return the last tensor that leaves each layer group of a functional network.

    A tensor belongs to the last group that it was computed with. It leaves the group if
    a later group uses it, or if it is the output that `features` reads. If several
    tensors leave, as in a network with skip connections, the last one counts. A nested
    model is one layer, so only its last group has an output.

    Args:
        network: A functional or Sequential model with weights.

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
    end = graph.outputs[0] if key is None else graph.output[key]
    order = list(_in_order(end))
    places: dict[tuple, int] = {}  # from calls to positions of groups
    leaving = [end]
    for operation, call, inputs in order:
        before = [places[_keras.source(tensor)[:2]] for tensor in inputs]
        weights = getattr(operation, "weights", ())
        own = [groups.position(weight) for weight in weights]
        place = max([*own, *before], default=-1)
        places[operation, call] = place
        pairs = zip(inputs, before, strict=True)
        leaving += [tensor for tensor, earlier in pairs if earlier < place]
    calls = [(operation, call) for operation, call, _ in order]
    leaving.sort(key=lambda tensor: calls.index(_keras.source(tensor)[:2]))
    last = {places[_keras.source(tensor)[:2]]: tensor for tensor in leaving}
    return {groups[place].name: last[place] for place in sorted(last) if place >= 0}


def _in_order(end: keras.KerasTensor) -> Iterator[tuple]:
    """Yield each operation, call and inputs that lead to `end`, after its inputs."""
    done: set[tuple] = set()
    waiting = [end]
    while waiting:
        operation, call, inputs = _keras.source(waiting[-1])
        missing = [x for x in inputs if _keras.source(x)[:2] not in done]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        if (operation, call) not in done:
            done.add((operation, call))
            yield operation, call, inputs
