"""Layers that stay frozen in a whole run of fine_tune: by flags or by `frozen=`."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable
from difflib import get_close_matches
from typing import NamedTuple

import keras

from keras_transfer import _keras
from keras_transfer.backbones.block_patterns import find_owners
from keras_transfer.backbones.groups import LayerGroups

SHOWN = 5  # the largest number of names in a printed line

# Weights that fine_tune has frozen, by id, and not the user. The reference
# distinguishes a weight from a later weight with the same id.
_frozen_by_runs: dict[int, weakref.ref] = {}


class KeptFrozen(NamedTuple):
    """Layers and weights that no phase trains.

    Args:
        ids: Ids of layers and weights.
        before: The ids that were frozen when the run began.
        said: Lines to print, one for each reason.
    """

    ids: frozenset[int]
    before: frozenset[int]
    said: tuple[str, ...]


def kept_frozen(groups: LayerGroups, frozen: str | Iterable[str] = ()) -> KeptFrozen:
    """Return the layers and weights that stay frozen in a model.

    Layers with `trainable = False` and single weights that were frozen when the run
    began stay frozen. If an earlier run of fine_tune froze them, they can be unfrozen.

    Args:
        groups: The layer groups of the model.
        frozen: Names of groups, or regular expressions for the paths of layers with
            weights, as in `kt.layer_groups`. Defaults to no names.

    Raises:
        TypeError: If `frozen` is not a string or several strings.
        ValueError: If a name matches nothing.
    """
    model = groups.model
    ids, flagged = set(), []
    for layer in _keras.flat_layers(model):
        able = _keras.learnable(layer)
        own = [v for v in able if not (layer.trainable and v.trainable)]
        own = [variable for variable in own if not _is_of_runs(variable)]
        ids.update(map(id, own))
        if own and not layer.trainable:
            flagged.append(layer)
        # A layer with statistics but no trainable weights has only its own flag.
        statistics = not able and not layer.trainable and _keras.own_weights(layer)
        if statistics or own and len(own) == len(able):
            ids.add(id(layer))
    said = []
    if flagged:
        said.append(
            f"kept frozen, because layer.trainable is False: {_shown(groups, flagged)}"
        )
    before = frozenset(ids)
    asked = _named(groups, frozen)
    if asked:
        ids.update(id(layer) for layer in asked)
        ids.update(id(v) for layer in asked for v in _keras.own_weights(layer))
        said.append(f"kept frozen, as set by frozen=: {_shown(groups, asked)}")
    return KeptFrozen(frozenset(ids), before, tuple(said))


def note_frozen(model: keras.Model, kept: KeptFrozen) -> None:
    """Record the weights that a run has frozen, so the next run can unfreeze them."""
    for key in [key for key, alive in _frozen_by_runs.items() if alive() is None]:
        del _frozen_by_runs[key]
    for layer in _keras.flat_layers(model):
        for variable in _keras.learnable(layer):
            if not variable.trainable and id(variable) not in kept.before:
                _frozen_by_runs[id(variable)] = weakref.ref(variable)
            elif variable.trainable:
                _frozen_by_runs.pop(id(variable), None)


def _is_of_runs(variable: keras.Variable) -> bool:
    alive = _frozen_by_runs.get(id(variable))
    return alive is not None and alive() is variable


def _named(groups: LayerGroups, frozen: str | Iterable[str]) -> list[keras.Layer]:
    """Return the layers that `frozen` names, by group or by path."""
    frozen = [frozen] if isinstance(frozen, str) else list(frozen or ())
    found = []
    for name in frozen:
        if not isinstance(name, str):
            raise TypeError(
                f"frozen={frozen!r} must be strings. Pass names of layer groups, or "
                "regular expressions for the paths of layers."
            )
        if name in groups.names:
            found.extend(groups[name].layers)
            continue
        owners = find_owners(groups.model)
        matched = [owner.layer for owner in owners if re.search(name, owner.path)]
        if not matched:
            near = get_close_matches(name, groups.names, n=1, cutoff=0)
            raise ValueError(
                f"frozen={name!r} names no layer group, and no path of a layer with "
                f"weights contains it. Did you mean {near[0]!r}? The groups are "
                f"{groups.names}. The paths are "
                f"{_listed([owner.path for owner in owners])}."
            )
        found.extend(matched)
    return found


def _shown(groups: LayerGroups, layers: list[keras.Layer]) -> str:
    """Return the names of the complete groups among `layers`, and of other layers."""
    chosen = {id(layer) for layer in layers}
    names = []
    for group in groups:
        able = [x for x in group.layers if _keras.learnable(x)] or list(group.layers)
        inside = [layer for layer in able if id(layer) in chosen]
        if len(inside) == len(able):
            names.append(group.name)
        elif inside:
            names.append(f"{_listed([x.name for x in inside])} of {group.name}")
    return ", ".join(names)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
