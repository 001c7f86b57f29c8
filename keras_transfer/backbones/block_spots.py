"""block_spots: the layer group of each call of a graph, and how often it ran before."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

import keras

from keras_transfer import _keras
from keras_transfer.backbones.block_names import block_name
from keras_transfer.backbones.groups import LayerGroups

Spot = tuple[int, int]  # the position of a group, and its time from 0


class BlockSpots(NamedTuple):
    """The spots of a graph.

    Args:
        order: Each operation, call and inputs, after the calls of its inputs.
        of_call: The spot of each operation and call.
        of: Function that returns the spot of a tensor.
    """

    order: list[tuple]
    of_call: dict[tuple, Spot]
    of: Callable[[keras.KerasTensor], Spot]


def block_spots(ends: Sequence[keras.KerasTensor], groups: LayerGroups) -> BlockSpots:
    """Return the spots of all tensors that lead to `ends`.

    A tensor is at the last group that it was computed with. A group has more than one
    time if its layers run again on their own results, as in ALBERT.

    Args:
        ends: Symbolic tensors.
        groups: The layer groups of a model that contains all layers before `ends`.
    """
    order = list(_in_order(ends))
    spots: dict[tuple, Spot] = {}
    behind: dict[tuple, set] = {}  # layers with weights at the same spot, on the way

    def of(tensor: keras.KerasTensor) -> Spot:
        operation, call, _ = _keras.source(tensor)
        inside = spots_inside(operation)
        return inside.get(_keras.output_index(tensor), spots[operation, call])

    for operation, call, inputs in order:
        weights = getattr(operation, "weights", ())
        own = [groups.position(weight) for weight in weights]
        named = block_name(operation.name)
        if not weights and named in groups:  # such as the padding before a convolution
            own = [groups.names.index(named)]
        place = max([*own, *(of(each)[0] for each in inputs)], default=-1)
        before = [each for each in inputs if of(each)[0] == place]
        time = max([of(each)[1] for each in before], default=0)
        calls = [_keras.source(each)[:2] for each in before if of(each)[1] == time]
        found = set().union(*(behind[each] for each in calls))
        if weights and max(own) == place:
            if operation in found:
                time, found = time + 1, set()
            found = found | {operation}
        spots[operation, call] = (place, time)
        behind[operation, call] = found
    return BlockSpots(order, spots, of)


def spots_inside(operation: object) -> dict[int, Spot]:
    """Return the spots of the outputs of an opened layer, or {} of another operation.

    Args:
        operation: An operation, perhaps a `FrozenBackbone` of an opened layer.
    """
    while isinstance(operation, keras.layers.Wrapper):
        operation = operation.layer
    return getattr(operation, "spots_inside", {})


def _in_order(ends: Sequence[keras.KerasTensor]) -> Iterator[tuple]:
    """Yield each operation, call and inputs that lead to `ends`, after its inputs."""
    done: set[tuple] = set()
    waiting = [*reversed(ends)]
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
