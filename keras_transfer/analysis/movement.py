"""Measure how far the weights of layer groups have moved from their start."""

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer._keras import value
from keras_transfer.backbones.groups import LayerGroup
from keras_transfer.backbones.groups import LayerGroups

# A function from a variable to its start value, or to None if it was not recorded.
Lookup = Callable[[keras.Variable], np.ndarray | None]


@dataclasses.dataclass(frozen=True)
class Movement:
    """Distance of some weights from their start. None means not recorded.

    Args:
        norm: `||w - w0|| / ||w0||` over all floating weights except the statistics of
            BatchNorm. If `||w0||` is 0, `||w - w0||`.
        relative: Whether `norm` was divided by `||w0||`.
        statistics: Number of moving means and variances of BatchNorm.
        statistics_moved: Number of statistics with any changed bit.
        missing: Number of variables without a recorded start.
    """

    norm: float | None
    relative: bool
    statistics: int
    statistics_moved: int | None
    missing: int


def movement(groups: Sequence[LayerGroup], start: Lookup) -> Movement:
    """Return how far all weights of `groups` together have moved."""
    statistics = {id(v) for group in groups for v in _statistics(group)}
    moved_statistics, known_statistics = 0, 0
    change, length, compared, missing = 0.0, 0.0, 0, 0
    for variable in (v for group in groups for v in group.variables):
        before = start(variable)
        if before is None:
            missing += 1
            continue
        now = value(variable)
        if id(variable) in statistics:
            known_statistics += 1
            moved_statistics += now.tobytes() != before.tobytes()
        elif keras.backend.is_float_dtype(variable.dtype):
            compared += 1
            before = before.astype("float64")
            change += np.sum(np.square(now.astype("float64") - before)).item()
            length += np.sum(np.square(before)).item()
    norm = math.sqrt(change)
    return Movement(
        norm=None if not compared else norm / math.sqrt(length) if length else norm,
        relative=length != 0,
        statistics=len(statistics),
        statistics_moved=(
            moved_statistics if known_statistics == len(statistics) else None
        ),
        missing=missing,
    )


def lookup(groups: LayerGroups, reference: Any) -> Lookup:
    """Return a function from each weight of a model to its value in `reference`.

    Args:
        groups: The layer groups of the model.
        reference: A model with the same weights, or a list of arrays in the order of
            `model.get_weights()`.

    Returns:
        A function from a variable to an array.

    Raises:
        TypeError: If `reference` is not a model or a list.
        ValueError: If the number, the shapes or the names of the weights differ.
    """
    weights = groups.model.weights
    if isinstance(reference, keras.layers.Layer):
        theirs = [(v.path, v.name, tuple(v.shape)) for v in reference.weights]
        arrays = reference.weights
    elif isinstance(reference, list | tuple):
        arrays = [np.asarray(each) for each in reference]
        theirs = [
            (f"array {number}", None, each.shape) for number, each in enumerate(arrays)
        ]
    else:
        raise TypeError(
            f"reference is a {type(reference).__name__}. Pass a model with the same "
            "weights, or the list of arrays that model.get_weights() returned before "
            "training."
        )
    for variable, (path, name, shape) in zip(weights, theirs):
        if shape != tuple(variable.shape) or name not in (None, variable.name):
            raise ValueError(
                f"reference does not fit the model {groups.model.name!r}. It has "
                f"{path!r} of shape {shape}, but the model has {variable.path!r} of "
                f"shape {tuple(variable.shape)} in this place. Pass weights of the "
                "same layers in the same order."
            )
    if len(theirs) != len(weights):
        raise ValueError(
            f"reference has {len(theirs)} weights, but the model "
            f"{groups.model.name!r} has {len(weights)}. Pass weights of the same "
            "layers. If the model has new weights, call "
            "keras_transfer.analysis.record_start(model) before training instead."
        )
    numbers = {id(variable): number for number, variable in enumerate(weights)}

    def start(variable: keras.Variable) -> np.ndarray:
        weight = arrays[numbers[id(variable)]]
        return weight if isinstance(weight, np.ndarray) else value(weight)

    return start


def _statistics(group: LayerGroup) -> list[keras.Variable]:
    held = {id(variable) for variable in group.variables}
    statistics = [
        variable
        for layer in group.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        for variable in (layer.moving_mean, layer.moving_variance)
    ]
    return [variable for variable in statistics if id(variable) in held]
