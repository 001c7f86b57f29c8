"""Layers where a part has no effect: they never run, or others read their weights."""

from __future__ import annotations

from collections.abc import Iterable

import keras

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.targets import Target


def split(
    model: keras.Layer, targets: list[Target], recipe: object
) -> tuple[list[Target], list[Target]]:
    """Return the targets where the parts of `recipe` take effect, and the others.

    A part only takes effect in the forward pass of its layer. Some blocks read a weight
    directly, in addition to or instead of calling the layer. There a part would have no
    effect, but the sum of `merge` would. If the model was never called and cannot run
    on symbolic inputs, this is unknown, and all targets are returned as usable.

    Args:
        model: A built model.
        targets: The layers that the recipe adapts.
        recipe: An `Adapter`.

    Raises:
        ValueError: If a part has no effect at a layer that the user named, or at any.
    """
    if not recipe.parts:
        return targets, []
    kinds = {target.layer: recipe.part_class(target.layer) for target in targets}
    reasons = reasons_of(model, kinds)
    served = [target for target in targets if target.layer not in reasons]
    others = [target for target in targets if target.layer in reasons]
    named = recipe.targets not in (None, "all-linear")
    if others and (named or not served):
        same = f" The same is true for {_paths(others[1:])}." if others[1:] else ""
        raise ValueError(
            f"No adapter can be attached to the layer {others[0].path!r}: "
            f"{reasons[others[0].layer]}.{same} Leave it out of the targets."
        )
    return served, others


def about(left_out: Iterable[Target]) -> str:
    """Return the text that `attach` prints about targets that were left out."""
    paths = _paths(list(left_out))
    return f"; not on {paths}, where it would have no effect" if left_out else ""


def readers(
    model: keras.Layer, layers: Iterable[keras.Layer]
) -> dict[keras.Layer, str]:
    """Return a dict from a layer of `layers` to the name of a layer that reads it.

    Layers without a reader are left out. If the readers are unknown (see `split`), the
    dict is empty.
    """
    layers = list(layers)
    once = _keras.symbolic_pass(model, layers, Part)
    found = once.readers if once else {}
    return {each: _named(found[id(each)]) for each in layers if id(each) in found}


def reasons_of(
    model: keras.Layer, kinds: dict[keras.Layer, type[Part]]
) -> dict[keras.Layer, str]:
    """Return a dict from layer to reason, for layers where a part has no effect.

    `kinds` maps each layer to the class of its part.
    """
    once = _keras.symbolic_pass(model, kinds, Part)
    known = once is not None or _keras.was_called(model)
    reasons = {}
    for layer, kind in kinds.items():
        if kind.in_reads:
            continue
        reader = once and once.readers.get(id(layer))
        reads = f"the {_named(reader)} reads its weights" if reader else ""
        runs = _keras.was_called(layer) or (once and id(layer) in once.ran)
        if not layer.weights:
            reasons[layer] = "it has no weights yet, because it was never called"
        elif known and not runs and layer is not model:
            reasons[layer] = (
                f"{reads} and does not call it" if reads else "it never runs"
            )
        elif reads and kind.in_weights:
            reasons[layer] = f"{reads} as well, where the adapter would have no effect"
    return reasons


def _paths(targets: list[Target]) -> str:
    more = f" and {len(targets) - 5} more" if len(targets) > 5 else ""
    return f"{[target.path for target in targets[:5]]}{more}"


def _named(layer: keras.Layer) -> str:
    return f"{type(layer).__name__} {layer.name!r}"
