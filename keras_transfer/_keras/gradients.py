"""Gradients outside a training step, on the backend of Keras."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops
from keras.src.backend import StatelessScope

from keras_transfer._keras.backends import on_jax


def gradient(function: Callable, x: Any) -> Any:
    """Return the gradient of a scalar `function` at a tensor, as a constant."""
    if on_jax():
        return _on_jax(function, x)
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        value = function(x)
    return tf.stop_gradient(tape.gradient(value, x))


def is_finite_for(model: keras.Model, x: Any) -> bool:
    """Return whether the outputs for `x` and the weight gradients are finite."""
    variables = [variable.value for variable in model.trainable_variables]
    gradients = _weights_on_jax if on_jax() else _weights_on_tensorflow
    tensors = gradients(model, variables, x)
    return all(bool(ops.all(ops.isfinite(x))) for x in tensors if x is not None)


def _sum(outputs: Any) -> Any:
    return sum(ops.sum(ops.cast(x, "float32")) for x in keras.tree.flatten(outputs))


def _weights_on_tensorflow(model: keras.Model, variables: list, x: Any) -> list:
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        outputs = model(x, training=False)
        value = _sum(outputs)
    gradients = tape.gradient(value, variables)
    dense = [
        None if each is None else ops.convert_to_tensor(each) for each in gradients
    ]
    return [*keras.tree.flatten(outputs), *dense]


def _weights_on_jax(model: keras.Model, variables: list, x: Any) -> list:
    import jax

    fixed = [variable.value for variable in model.non_trainable_variables]

    def value(variables: list) -> tuple[Any, Any]:
        outputs, _ = model.stateless_call(variables, fixed, x, training=False)
        return _sum(outputs), outputs

    (_, outputs), gradients = jax.value_and_grad(value, has_aux=True)(variables)
    return [*keras.tree.flatten(outputs), *gradients]


def _on_jax(function: Callable, x: Any) -> Any:
    import jax

    changed = {}

    def pure(x: Any) -> tuple[Any, dict]:
        with Updates() as scope:
            value = function(x)
        changed.update(scope.changed)
        return value, {key: scope.state_mapping[key] for key in changed}

    slope, values = jax.grad(pure, has_aux=True)(x)
    for key, variable in changed.items():
        variable.assign(values[key])  # moving averages and random seeds
    return jax.lax.stop_gradient(slope)


class Updates(StatelessScope):
    """Catch the updates of variables, and read those of the scope around it."""

    def __init__(self, state_mapping: Sequence = ()):
        super().__init__(state_mapping, collect_losses=True)
        self.changed = {}

    def __enter__(self) -> "Updates":
        super().__enter__()
        if self.original_scope is not None:
            around = self.original_scope.state_mapping
            self.state_mapping = {**around, **self.state_mapping}
        return self

    def add_update(self, update: tuple) -> None:
        super().add_update(update)
        self.changed[id(update[0])] = update[0]
