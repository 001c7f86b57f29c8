"""Layers that a part cannot serve: never run, or with weights that others read."""

from __future__ import annotations

from collections.abc import Iterable

import keras

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.targets import Target


def split(
    model: keras.Layer, targets: list[Target], recipe: object
) -> tuple[list[Target], list[Target]]:
    """Return those of the targets of `recipe` that its parts can serve, and the others.

    A part counts in the forward pass of its layer alone. Some blocks read a weight
    themselves, in place of calling the layer or next to it: there a part would not
    count, but the sum that `merge` makes would. Of a model that was never called, and
    cannot be run on symbols, nothing is known: all are served then.

    Args:
        model: A built model.
        targets: Its layers that the recipe goes to.
        recipe: An `Adapter`.

    Raises:
        ValueError: If one that the user named, or each, cannot be served.
    """
    if not recipe.parts:
        return targets, []
    kinds = {target.layer: recipe.part_class(target.layer) for target in targets}
    reasons = reasons_of(model, kinds)
    served = [target for target in targets if target.layer not in reasons]
    others = [target for target in targets if target.layer in reasons]
    named = recipe.targets not in (None, "all-linear")
    if others and (named or not served):
        same = f" The same holds for {_paths(others[1:])}." if others[1:] else ""
        raise ValueError(
            f"No adapter can go to the layer {others[0].path!r}: "
            f"{reasons[others[0].layer]}.{same} Leave it out of the targets."
        )
    return served, others


def about(left_out: Iterable[Target]) -> str:
    """Return what the line of `attach` says of targets that were left out."""
    paths = _paths(list(left_out))
    return f"; not on {paths}, where it would not count" if left_out else ""


def readers(
    model: keras.Layer, layers: Iterable[keras.Layer]
) -> dict[keras.Layer, str]:
    """Return the `layers` of which another reads a weight, each with the other's name.

    Empty where that is not known, see `split`.
    """
    layers = list(layers)
    once = _keras.symbolic_pass(model, layers)
    found = once.readers if once else {}
    return {each: _named(found[id(each)]) for each in layers if id(each) in found}


def reasons_of(
    model: keras.Layer, kinds: dict[keras.Layer, type[Part]]
) -> dict[keras.Layer, str]:
    """Return why layers cannot be served by a part of a class, those that cannot."""
    once = _keras.symbolic_pass(model, kinds)
    known = once is not None or _keras.was_called(model)
    reasons = {}
    for layer, kind in kinds.items():
        if kind.in_reads:
            continue
        reader = once and once.readers.get(id(layer))
        reads = f"the {_named(reader)} reads its weights" if reader else ""
        runs = _keras.was_called(layer) or (once and id(layer) in once.ran)
        if not _keras.own_weights(layer):
            reasons[layer] = "it has no weights yet, since it was never called"
        elif known and not runs and layer is not model:
            reasons[layer] = (
                f"{reads} and does not call it" if reads else "it never runs"
            )
        elif reads and kind.in_weights:
            reasons[layer] = f"{reads} as well, where the adapter would not count"
    return reasons


def _paths(targets: list[Target]) -> str:
    more = f" and {len(targets) - 5} more" if len(targets) > 5 else ""
    return f"{[target.path for target in targets[:5]]}{more}"


def _named(layer: keras.Layer) -> str:
    return f"{type(layer).__name__} {layer.name!r}"
