"""Scores of a model on held-out examples, with standard errors."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.data.examples import rows_of

GROUPS = 32  # of held-out examples, whose scores are compared in pairs


class Score:
    """Values of a metric and of the loss for groups of held-out examples.

    Args:
        values: Array of the metric by group, where larger is better.
        losses: Array of the loss by group.
        sizes: Array of the number of examples by group.
        metric: Name of the metric.
        larger: Whether a larger value of the metric is better.
    """

    def __init__(
        self, values: Any, losses: Any, sizes: Any, metric: str, larger: bool
    ) -> None:
        self.values = np.asarray(values, "float64")
        self.losses = np.asarray(losses, "float64")
        self.sizes = np.asarray(sizes, "float64")
        self.metric = metric
        self.larger = larger

    @property
    def mean(self) -> float:
        """The mean of the metric over all examples."""
        return _mean(self.values, self.sizes)

    @property
    def loss(self) -> float:
        """The mean of the loss over all examples."""
        return _mean(self.losses, self.sizes)

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return standard_error(self.values, self.sizes)

    @property
    def finite(self) -> bool:
        """Whether all values are finite."""
        return bool(np.isfinite([self.values, self.losses]).all())

    def gain(self, other: Score) -> tuple[float, float]:
        """Return the mean difference to another score, and its standard error."""
        difference = self.values - other.values
        return _mean(difference, self.sizes), standard_error(difference, self.sizes)

    def loss_gain(self, other: Score) -> tuple[float, float]:
        """Return by how much the loss is lower, and the standard error of this."""
        difference = other.losses - self.losses
        return _mean(difference, self.sizes), standard_error(difference, self.sizes)

    def joined(self, other: Score) -> Score:
        """Return the score on the examples of both."""
        columns = zip(self._columns, other._columns, strict=True)
        return Score(*map(np.concatenate, columns), self.metric, self.larger)

    def summary(self) -> dict[str, float | None]:
        """Return the estimate of the metric, its standard error, and the loss."""
        if not self.finite:
            return dict.fromkeys(("estimate", "error", "loss"))
        sign = 1 if self.larger else -1
        return {"estimate": sign * self.mean, "error": self.error, "loss": self.loss}

    def to_config(self) -> list:
        """Return the arguments of the constructor as plain values."""
        columns = [each.tolist() for each in self._columns]
        return [*columns, self.metric, self.larger]

    @property
    def _columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.values, self.losses, self.sizes


def _metric(model: keras.Model, names: Iterable[str]) -> tuple[str, bool]:
    """Return the name of the value that is compared, and whether larger is better.

    This is the first compiled metric that is a mean over examples, such as an accuracy,
    and otherwise the loss. With several outputs it is the loss, which is of all of
    them. Their metrics have other `names`.
    """
    for metric in _keras.built_metrics(model):
        direction = _keras.metric_directions(model).get(metric.name)
        mean = isinstance(metric, keras.metrics.Mean) and metric.name in names
        # The mean of roots is not the root of the mean.
        mean = mean and not isinstance(metric, keras.metrics.RootMeanSquaredError)
        if direction is not None and mean:
            return metric.name, direction
    return "loss", False


def score(
    model: keras.Model,
    arrays: tuple,
    class_weight: Mapping[int, float] | None,
    classes: np.ndarray | None,
) -> Score:
    """Return the score of a compiled model on arrays `(x, y)` or `(x, y, weight)`."""
    count = len(keras.tree.flatten(arrays)[0])
    if class_weight is not None:
        weights = np.array([class_weight[each] for each in classes], "float32")
        arrays = (*arrays[:2], weights)
    groups = np.array_split(np.arange(count), min(GROUPS, count))
    # The method of a keras-hub Task would preprocess once more.
    method = functools.partial(keras.Model.test_on_batch, model)
    return score_batches(model, (rows_of(arrays, rows) for rows in groups), method)


def score_batches(
    model: keras.Model, batches: Iterable[tuple], method: Callable | None = None
) -> Score:
    """Return the score of a compiled model, with a group for each batch.

    A loss is without the penalties of regularizers, which say nothing about examples.

    Args:
        model: A compiled model.
        batches: Tuples `(x, y)` or `(x, y, weight)`.
        method: The method that tests on a batch. Defaults to `model.test_on_batch`.
    """
    method = method or model.test_on_batch
    logs, sizes, weights = [], [], []
    for batch in batches:
        logs.append(method(*batch, return_dict=True))
        sizes.append(len(keras.tree.flatten(batch)[0]))
        weights.append(_total_weight(batch, sizes[-1]))
    name, larger = _metric(model, logs[0])
    model.reset_metrics()
    losses = np.array([each["loss"] for each in logs]) - _keras.weight_penalty(model)
    values = losses if name == "loss" else np.array([each[name] for each in logs])
    if _keras.is_weighted(model, name):
        # Scaled so that the mean over examples is the mean over their weights.
        shares = np.array(weights) / sizes
        values = (
            np.where(shares > 0, values, 0) * shares / np.average(shares, weights=sizes)
        )
    return Score(values * (1 if larger else -1), losses, sizes, name, larger)


def _total_weight(batch: tuple, count: int) -> float:
    """Return the sum of the sample weights of a batch."""
    if len(batch) < 3 or batch[2] is None or keras.tree.is_nested(batch[2]):
        return float(count)
    weights = np.asarray(batch[2], "float64").reshape(count, -1)
    return float(weights.mean(axis=1).sum())


def _mean(values: np.ndarray, sizes: np.ndarray) -> float:
    return float(np.average(values, weights=sizes))


def standard_error(values: np.ndarray, sizes: np.ndarray) -> float:
    """Return the standard error of the mean of groups of `sizes` examples."""
    if len(values) < 2:
        return math.inf
    mean = _mean(values, sizes)
    weights = sizes / sizes.sum()
    variance = (weights**2 * (values - mean) ** 2).sum() * len(values)
    return float(np.sqrt(variance / (len(values) - 1)))
