"""The score of a compiled model on held-out data, by one of its metrics."""

from __future__ import annotations

import math
from typing import Any
from typing import NamedTuple

import keras

from keras_transfer.analysis.directions import direction_in
from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import check_finite
from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import rows_of


class HeldOutScore(NamedTuple):
    """The value of a metric, and whether a larger value is better."""

    metric: str
    value: float
    larger: bool

    @property
    def sort_key(self) -> float:
        """A number that is larger for a better score. NaN is the worst."""
        if math.isnan(self.value):
            return -math.inf
        return self.value if self.larger else -self.value


def held_out_score(
    model: keras.Model, data: Any, metric: str | None, name: str = "data"
) -> HeldOutScore:
    """Evaluate a model.

    Args:
        model: A compiled model.
        data: `(x, y)` or `(x, y, sample_weight)` as arrays, or a batched dataset.
        metric: Name of a value that `evaluate` returns. None takes the first compiled
            metric whose direction is known, and otherwise the loss.
        name: Name of the data in errors.

    Raises:
        TypeError: If the data can be read only once or is of an unknown kind.
        ValueError: If the model is not compiled, the data is empty or infinite, or the
            metric is unknown or has no known direction.
    """
    if not model.compiled:
        raise ValueError(
            f"The model {model.name!r} is not compiled, so it has no loss and no "
            "metric to compare. Call compile first."
        )
    if kind_of(data, name) == ARRAYS:
        count_rows(data, name)
        logs = model.evaluate(*rows_of(data, slice(None)), verbose=0, return_dict=True)
    else:
        check_finite(data, name)
        logs = model.evaluate(data, verbose=0, return_dict=True)
    directions = {each: direction_in(model, each) for each in logs}
    known = [each for each, larger in directions.items() if larger is not None]
    if metric is None:
        metric = next((each for each in known if each != "loss"), "loss")
    if metric not in known:
        raise ValueError(
            f"metric={metric!r} is not a value that `evaluate` returns with a known "
            f"direction. Choose one of {known}."
        )
    return HeldOutScore(metric, float(logs[metric]), directions[metric])
