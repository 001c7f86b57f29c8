"""The layers that a recipe adapts if the user names no layers."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence

import keras

from keras_transfer.backbones.groups import layer_groups
from keras_transfer.backbones.projections import CROSS
from keras_transfer.backbones.projections import QUERY_AND_VALUE

LINEAR = (keras.layers.Dense, keras.layers.EinsumDense)
# Convolutions that mix all channels, unless they have groups.
CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
# The groups of `kt.layer_groups` that are not blocks of the backbone.
NOT_BLOCKS = ("stem", "head")


def default_targets(model: keras.Layer, choices: Sequence, technique: str) -> list:
    """Return the default targets among `choices`.

    These are the query and value projections. A model without them gets the
    convolutions in numbered blocks that mix all channels. In a block that only has
    grouped or depthwise convolutions, the Dense layers take their place, because they
    are convolutions of size 1.

    Raises:
        ValueError: If the model has no such layers.
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
        f"No default targets are known for the model {model.name!r}. It has no query "
        "and value projections, and no convolutions in numbered blocks, that "
        f"{technique} can adapt. Give targets='all-linear', a regular expression over "
        "paths, or layers; LoRA adapts convolutions of each kind. The layers that "
        f"{technique} can adapt here are {[target.path for target in choices][:20]}."
    )


def all_linear(
    model: keras.Layer, choices: Sequence, head: Iterable[keras.Layer]
) -> list:
    """Return each Dense and EinsumDense among `choices` that is not in `head`.

    Raises:
        ValueError: If there is no such layer.
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
            f"{model.name!r}. Name targets among {[x.path for x in choices][:20]}."
        )
    return targets


def depthwise_left_out(model: keras.Layer, targets: Sequence) -> int:
    """Return how many grouped and depthwise convolutions are not in default `targets`.

    The number is 0 for transformers, where projections are chosen by their names.
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
    """Return the text that `attach` prints about layers that do not fit the recipe."""
    what = "depthwise, grouped or too small; name them in `targets` to adapt them"
    return f"; {count} left out: {what}" if count else ""


def _blocks(model: keras.Layer) -> list[list[keras.Layer]]:
    groups = layer_groups(model)
    # A model with blocks has a stem. Without blocks each layer is a group.
    if len(groups) <= 2 and groups[0].name != "stem":
        return []
    return [list(x.layers) for x in groups if x.name not in NOT_BLOCKS]


def _is_grouped(layer: keras.Layer) -> bool:
    """Return whether `layer` is a grouped or depthwise convolution."""
    if isinstance(layer, CONVOLUTIONS):
        return getattr(layer, "groups", 1) != 1
    return isinstance(layer, DEPTHWISE)


def _is_projection(path: str) -> bool:
    return bool(QUERY_AND_VALUE.search(path)) and not CROSS.search(path)
