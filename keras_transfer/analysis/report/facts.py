"""Parameters, trainable parameters, movement and optimizer bytes of layer groups."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable
from collections.abc import Sequence

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.analysis.movement import Lookup
from keras_transfer.analysis.movement import movement
from keras_transfer.backbones.groups import LayerGroup
from keras_transfer.backbones.groups import LayerGroups


def group_facts(groups: LayerGroups, start: Lookup | None) -> tuple[dict, dict]:
    """Return the facts of a model and its groups, and reasons for missing values.

    Args:
        groups: The layer groups of a model.
        start: A function from a variable to its start value, or None.

    Returns:
        A dict of `model`, `optimizer`, `groups` and `total` that JSON can store, and a
        dict from the names of values that are None to the reasons.

    Raises:
        ValueError: If the model has weights that are in no group.
    """
    model = groups.model
    for weight in model.weights:
        groups.position(weight)  # raises for a weight that is in no group
    learning = {id(variable) for variable in model.trainable_variables}
    optimizer, slots, reasons = _optimizer(model)
    rows = []
    for name, part in [*zip(groups.names, ([g] for g in groups)), ("total", groups)]:
        variables = [variable for group in part for variable in group.variables]
        row = {
            "name": name,
            "layers": sum(len(group.layers) for group in part),
            "parameters": _count(variables),
            "trainable": _count(each for each in variables if id(each) in learning),
        }
        moved, why = _moved(part, start)
        if why and len(rows) < len(groups):
            reasons[f"groups.{name}.moved"] = why
        size = sum(slots[id(each)] for each in variables) if optimizer else None
        if optimizer and optimizer["bytes"] is None:
            size = None
        rows.append(row | moved | {"optimizer_bytes": size})
    *rows, total = rows
    if optimizer and optimizer["bytes"] is not None:
        optimizer["shared_bytes"] = optimizer["bytes"] - total["optimizer_bytes"]
        total["optimizer_bytes"] = optimizer["bytes"]
    facts = {
        "model": {
            "name": model.name,
            "class": type(model).__name__,
            "parameters": total["parameters"],
            "trainable": total["trainable"],
        },
        "groups": rows,
        "total": total,
        "optimizer": optimizer,
    }
    return facts, reasons


def _moved(part: Sequence[LayerGroup], start: Lookup | None) -> tuple[dict, str | None]:
    distance = movement(part, start or (lambda variable: None))
    norm, why = distance.norm, None
    count = sum(len(group.variables) for group in part)
    if norm is not None and not math.isfinite(norm):
        norm, why = None, "the group has weights that are not finite"
    elif start is not None and distance.missing:
        why = f"{distance.missing} of {count} variables have no recorded start"
        if norm is not None:
            why += "; the norm covers the other variables"
    elif start is not None and norm is None:
        why = "the group has only statistics and integer weights"
    return {
        "moved": norm,
        "moved_is_relative": None if norm is None else distance.relative,
        "statistics": distance.statistics,
        "statistics_moved": distance.statistics_moved,
    }, why


def _optimizer(model: keras.Model) -> tuple[dict | None, dict[int, int], dict]:
    """Return facts of the optimizer, slot bytes by variable id, and reasons."""
    slots = collections.Counter()
    if not getattr(model, "compiled", False) or model.optimizer is None:
        return None, slots, {"optimizer": "the model is not compiled"}
    optimizer = model.optimizer
    inner = _keras.inner_optimizer(optimizer)
    facts = {
        "class": type(inner).__name__,
        "updates": int(_keras.value(optimizer.iterations)),
        "bytes": None,
        "shared_bytes": None,
    }
    if not inner.built:
        reason = "the optimizer creates its slots when training begins"
        return facts, slots, {"optimizer.bytes": reason}
    for variable, slot in _keras.slots(optimizer):
        slots[id(variable)] += _bytes(slot)
    return facts | {"bytes": sum(map(_bytes, optimizer.variables))}, slots, {}


def _bytes(variable: keras.Variable) -> int:
    return math.prod(variable.shape) * np.dtype(variable.dtype).itemsize


def _count(variables: Iterable[keras.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)
