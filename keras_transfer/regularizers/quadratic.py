"""Quadratic: the penalty of one weight, and the regularizer that adds penalties up."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras

# The variables of a penalty, in the order of a file.
STATE = ("center", "importance", "offset")


class Quadratic:
    """`factor / 2 sum_i importance_i (w_i - center_i)^2 + factor offset` of a weight.

    A sum of such penalties is such a penalty again, so several tasks need no more
    memory than one. The variables belong to no layer, so they are not among the weights
    of the model.

    Args:
        factor: Number that multiplies the penalty.
        shape: Shape of the weight.
        center: Whether the penalty has centers. Otherwise they are 0.
        importance: Whether each scalar has its own importance. Otherwise they are 1.
    """

    def __init__(
        self, factor: float, shape: Sequence[int], *, center: bool, importance: bool
    ) -> None:
        shapes = {}
        if center:
            shapes["center"] = tuple(shape)
        if importance:
            shapes |= {"importance": tuple(shape), "offset": ()}
        self.factor = factor
        self.variables = {
            name: keras.Variable(
                np.zeros(each, "float32"),
                trainable=False,
                dtype="float32",
                autocast=False,
                aggregation="only_first_replica",
                name=f"penalty_{name}",
            )
            for name, each in shapes.items()
        }

    def __call__(self, weight: object) -> object:
        """Return the penalty of the value of a weight, in float32."""
        found = {name: each.value for name, each in self.variables.items()}
        # In half precision, the difference from the center would lose its digits.
        distance = ops.cast(weight, "float32")
        if "center" in found:
            distance = distance - found["center"]
        squares = ops.square(distance)
        if "importance" in found:
            squares = found["importance"] * squares
        return self.factor * (0.5 * ops.sum(squares) + found.get("offset", 0.0))

    def values(self) -> dict[str, np.ndarray]:
        """Return the values of the variables by name."""
        return {name: _keras.value(each) for name, each in self.variables.items()}

    def assign(self, **values: np.ndarray) -> None:
        """Set the variables by name."""
        for name, value in values.items():
            self.variables[name].assign(np.asarray(value, "float32"))

    def add(self, importance: np.ndarray, center: np.ndarray) -> None:
        """Add `1/2 sum_i importance_i (w_i - center_i)^2` to the penalty.

        With `F` and `c` for both penalties, the sum has the importance `F1 + F2`, the
        center `(F1 c1 + F2 c2) / (F1 + F2)`, and an offset that no weight changes.
        """
        now = {k: v.astype("float64") for k, v in self.values().items()}
        importance, center = np.float64(importance), np.float64(center)
        total = now["importance"] + importance
        mean = now["importance"] * now["center"] + importance * center
        mean = np.divide(mean, total, out=center.copy(), where=total > 0)
        apart = now["importance"] * (now["center"] - mean) ** 2
        apart = np.sum(apart + importance * (center - mean) ** 2)
        offset = now["offset"] + 0.5 * apart
        self.assign(importance=total, center=mean, offset=offset)

    def replace(self, decay: float, importance: np.ndarray, center: np.ndarray) -> None:
        """Keep `decay` of the importance, add a new one, and move the center."""
        total = decay * self.values()["importance"].astype("float64") + importance
        self.assign(importance=total, center=center)


class WeightRegularizer:
    """The regularizer of a Keras variable: its first regularizer and the penalties.

    Args:
        first: The regularizer that the variable had, or None.
    """

    def __init__(self, first: Callable | None) -> None:
        self.first = first
        self.penalties: dict[str, Quadratic] = {}

    def __call__(self, weight: object) -> object:
        """Return the sum for the value of the weight."""
        total = sum(penalty(weight) for penalty in self.penalties.values())
        return total if self.first is None else total + self.first(weight)


def regularize(variable: keras.Variable, name: str, penalty: Quadratic) -> None:
    """Add a penalty to what `variable` adds to the loss of its model."""
    if not isinstance(variable.regularizer, WeightRegularizer):
        variable.regularizer = WeightRegularizer(variable.regularizer)
    variable.regularizer.penalties[name] = penalty


def release(variable: keras.Variable, name: str) -> None:
    """Remove a penalty, and restore the first regularizer after the last penalty."""
    ours = variable.regularizer
    if isinstance(ours, WeightRegularizer):
        ours.penalties.pop(name, None)
        if not ours.penalties:
            variable.regularizer = ours.first
