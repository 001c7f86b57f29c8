"""Which layers a recipe goes to where the user names none."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence

import keras

from keras_transfer.backbones.groups import layer_groups
from keras_transfer.backbones.projections import CROSS
from keras_transfer.backbones.projections import QUERY_AND_VALUE

LINEAR = (keras.layers.Dense, keras.layers.EinsumDense)
# Convolutions that mix all channels, or can: those with groups do not.
CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
# What a head and a backbone are recognized by; the group's name of `kt.layer_groups`.
NOT_BLOCKS = ("stem", "head")


def default_targets(model: keras.Layer, choices: Sequence, technique: str) -> list:
    """Return the targets among `choices` of a recipe without any of the user's.

    These are queries and values; where there are none, the convolutions in numbered
    blocks that mix all channels, and the Dense layers of a block without these, which
    are its convolutions of size 1.

    Raises:
        ValueError: If the model has nothing of this kind.
    """
    targets = [
        target
        for target in choices
        if isinstance(target.layer, LINEAR) and _is_projection(target.path)
    ]
    if targets:
        return targets
    known = {id(target.layer) for target in choices}
    chosen: set[int] = set()
    for layers in _blocks(model):
        own = [layer for layer in layers if id(layer) in known]
        full = [x for x in own if isinstance(x, CONVOLUTIONS) and not _is_grouped(x)]
        if not full and any(map(_is_grouped, layers)):
            full = [layer for layer in own if isinstance(layer, LINEAR)]
        chosen |= {id(layer) for layer in full}
    if chosen:
        return [target for target in choices if id(target.layer) in chosen]
    raise ValueError(
        f"No default targets are known for the model {model.name!r}: it has neither "
        "query and value projections nor convolutions in numbered blocks that "
        f"{technique} can adapt. Give targets='all-linear', a regular expression over "
        "paths, or layers; LoRA adapts convolutions of each kind. What it can adapt "
        f"here is {[target.path for target in choices][:20]}."
    )


def all_linear(
    model: keras.Layer, choices: Sequence, head: Iterable[keras.Layer]
) -> list:
    """Return each Dense and EinsumDense among `choices` that is not in `head`.

    Raises:
        ValueError: If there is none.
    """
    above = {id(layer) for layer in head}
    targets = [
        target
        for target in choices
        if isinstance(target.layer, LINEAR) and id(target.layer) not in above
    ]
    if not targets:
        raise ValueError(
            f"targets='all-linear' finds no Dense or EinsumDense below the head of "
            f"{model.name!r}. The layers are {[x.path for x in choices][:20]}."
        )
    return targets


def depthwise_left_out(model: keras.Layer, targets: Sequence) -> int:
    """Return how many convolutions with groups are not among default `targets`.

    Of a network of convolutions: projections are chosen by their names.
    """
    if any(_is_projection(target.path) for target in targets):
        return 0
    chosen = {id(target.layer) for target in targets}
    return sum(
        _is_grouped(layer) and id(layer) not in chosen
        for layers in _blocks(model)
        for layer in layers
    )


def about_unfit(count: int) -> str:
    """Return what the line of `attach` says of layers that a recipe does not fit."""
    what = "depthwise, grouped or too small for it; name them to adapt them"
    return f"; {count} left out: {what}" if count else ""


def _blocks(model: keras.Layer) -> list[list[keras.Layer]]:
    groups = layer_groups(model)
    # There is a stem where there is a block; without blocks each layer is a group.
    if len(groups) <= 2 and groups[0].name != "stem":
        return []
    return [list(x.layers) for x in groups if x.name not in NOT_BLOCKS]


def _is_grouped(layer: keras.Layer) -> bool:
    """Return whether `layer` convolves each channel, or some of them, by themselves."""
    if isinstance(layer, CONVOLUTIONS):
        return getattr(layer, "groups", 1) != 1
    return isinstance(layer, DEPTHWISE)


def _is_projection(path: str) -> bool:
    return bool(QUERY_AND_VALUE.search(path)) and not CROSS.search(path)
