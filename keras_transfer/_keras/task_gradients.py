"""Gradients of several losses in one step, and a loss with given gradients."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_transfer._keras.backends import on_jax
from keras_transfer._keras.gradients import Updates
from keras_transfer._keras.replicas import replicas_in_step
from keras_transfer._keras.replicas import sum_over_replicas


def task_gradients(
    model: keras.Model, variables: Sequence[keras.Variable], function: Callable
) -> list:
    """Return the gradients of several losses for variables, as constants.

    Call this in `compute_loss`, where the tape of the step cannot be read. So
    `function` runs the model again. What it changes, such as moving averages and
    seeds, is dropped, because the forward pass of the step has changed it already. The
    gradients are computed at the loss scale of the optimizer and then divided by it.
    They are summed over the replicas, so each replica has those of the whole batch.

    Args:
        model: The compiled model.
        variables: The variables.
        function: A function without arguments that returns a list of losses.

    Returns:
        A tensor `(losses, *shape)` for each variable, float32.
    """
    # In float16, gradients of an unscaled loss would become 0.
    scale = model.optimizer.scale_loss(ops.ones((), "float32"))

    def scaled() -> list:
        return [ops.cast(each, "float32") * scale for each in function()]

    found = (_on_jax if on_jax() else _on_tensorflow)(variables, scaled)
    found = [ops.cast(each, "float32") / scale for each in found]
    return sum_over_replicas(found) if replicas_in_step() > 1 else found


def with_gradients(
    value: Any, variables: Sequence[keras.Variable], gradients: Sequence
) -> Any:
    """Return `value` as a loss whose gradients for `variables` are `gradients`.

    Each replica gets its part, because Keras sums the gradients over the replicas.
    """
    count = replicas_in_step()

    @ops.custom_gradient
    def loss(value: Any, *weights: Any) -> tuple:
        def grad(*args: Any, upstream: Any = None) -> tuple:
            slope = args[0] if upstream is None else upstream
            parts = (
                ops.cast(slope * (each / count), weight.dtype)
                for each, weight in zip(gradients, weights, strict=True)
            )
            return (ops.zeros_like(value), *parts)

        return value, grad

    value = ops.stop_gradient(value)
    return loss(value, *(ops.convert_to_tensor(each) for each in variables))


def _on_tensorflow(variables: Sequence, function: Callable) -> list:
    import tensorflow as tf

    sources = [variable.value for variable in variables]
    with Updates(), tf.GradientTape(persistent=True) as tape:
        losses = function()
    rows = [
        tape.gradient(loss, sources, unconnected_gradients="zero") for loss in losses
    ]
    return [
        tf.stop_gradient(tf.stack([tf.convert_to_tensor(each) for each in column]))
        for column in zip(*rows, strict=True)
    ]


def _on_jax(variables: Sequence, function: Callable) -> list:
    import jax

    def pure(values: list) -> Any:
        with Updates() as scope:
            for variable, value in zip(variables, values, strict=True):
                scope.state_mapping[id(variable)] = value
            return jax.numpy.stack(function())

    values = [jax.lax.stop_gradient(variable.value) for variable in variables]
    losses, pull_back = jax.vjp(pure, values)
    rows = [pull_back(row)[0] for row in jax.numpy.eye(len(losses))]
    return [jax.lax.stop_gradient(jax.numpy.stack(each)) for each in zip(*rows)]
