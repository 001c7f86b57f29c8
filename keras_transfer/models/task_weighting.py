"""How a MultiTask combines the losses of its tasks, or their gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer.losses.compiled_loss import read_loss
from keras_transfer.models.projected_gradients import projected_sum
from keras_transfer.models.task_losses import as_loss
from keras_transfer.models.task_losses import mean_loss
from keras_transfer.models.task_rows import TaskRows

FIXED, UNCERTAINTY, PCGRAD = WEIGHTINGS = ("fixed", "uncertainty", "pcgrad")


def means_by_task(
    model: keras.Model, outputs: Mapping[str, Any], rows: TaskRows
) -> dict[str, Any]:
    """Return the mean loss of each task that has labels."""
    return {
        name: mean_loss(
            as_loss(name, model.loss[name]),
            labels,
            outputs[name],
            rows.weights[name],
            rows.totals[name],
        )
        for name, labels in rows.labels.items()
    }


def weighted(model: keras.Model, losses: Mapping[str, Any], rows: TaskRows) -> list:
    """Return what each task adds to the loss.

    Args:
        model: A `MultiTask`.
        losses: The mean loss of each task that has labels.
        rows: The rows of the batch.
    """
    if model.weighting != UNCERTAINTY:
        given = _keras.compile_arguments(model)["loss_weights"] or {}
        return [given.get(name, 1.0) * loss for name, loss in losses.items()]
    variances = ops.convert_to_tensor(model.log_variances.values)
    found = []
    for place, name in enumerate(model.heads):
        if name in losses:
            numbers = read_loss(model.loss[name]).is_classifier is False
            factor = (0.5 if numbers else 1.0) * ops.exp(-variances[place])
            there = ops.cast(rows.totals[name] > 0, "float32")
            penalty = 0.5 * variances[place] * there / _keras.replicas_in_step()
            found.append(factor * losses[name] + penalty)
    return found


def with_projected_gradients(
    model: keras.Model,
    total: Any,
    x: Any,
    rows: TaskRows,
    orders: keras.random.SeedGenerator,
) -> Any:
    """Return `total` as a loss with projected gradients for the backbone.

    Args:
        model: A `MultiTask`.
        total: The loss.
        x: Inputs of the batch.
        rows: The rows of the batch.
        orders: The seeds of the orders of the tasks.

    Raises:
        ValueError: If no weight of the backbone trains.
    """
    own = {id(weight) for head in model.heads.values() for weight in head.weights}
    variables = model.trainable_variables
    shared = [place for place, each in enumerate(variables) if id(each) not in own]
    if not shared:
        raise ValueError(
            f"No weight of the backbone of {model.name!r} trains, so there are no "
            "gradients that weighting='pcgrad' could make agree. Use 'fixed'."
        )

    def again() -> list:
        outputs = model(x, training=True)
        return weighted(model, means_by_task(model, outputs, rows), rows)

    gradients = _keras.task_gradients(model, variables, again)
    count = len(rows.labels)
    draws = keras.random.uniform((count, count), seed=orders)
    order = ops.argsort(draws, axis=1)
    sums = [ops.sum(each, axis=0) for each in gradients]
    projected = projected_sum([gradients[place] for place in shared], order)
    for place, each in zip(shared, projected, strict=True):
        sums[place] = each
    return _keras.with_gradients(total, variables, sums)
