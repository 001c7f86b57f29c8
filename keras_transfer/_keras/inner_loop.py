"""Calls of a model with other values of its variables, and gradients through them."""

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras
from keras import ops
from keras.src.backend import get_keras_mask

from keras_transfer._keras.backends import on_jax
from keras_transfer._keras.gradients import Updates
from keras_transfer._keras.layers import calls_through
from keras_transfer._keras.layers import flat_layers
from keras_transfer._keras.layers import no_autocast


class Call(NamedTuple):
    """What a call with other values returns.

    Attributes:
        outputs: The outputs of the model.
        mask: Their Keras mask, or None.
        added: The sum of what layers added with `add_loss`.
        penalty: The sum of the regularizers of trainable weights, at these values.
        changed: The values of the given variables after the call.
        unread: The trainable variables that the call did not read.
    """

    outputs: Any
    mask: Any
    added: Any
    penalty: Any
    changed: list
    unread: list[keras.Variable]


class _Recorded(Updates):
    """Remember which variables are read."""

    def __init__(self, state_mapping: Sequence) -> None:
        super().__init__(state_mapping)
        self.read: set[int] = set()

    def get_current_value(self, variable: keras.Variable) -> Any:
        self.read.add(id(variable))
        return super().get_current_value(variable)


def call_with(
    model: keras.Model,
    pairs: Sequence[tuple[keras.Variable, Any]],
    x: Any,
    *,
    training: bool,
    batch_statistics: bool,
) -> Call:
    """Return the outputs of a model with other values of its variables.

    Nothing that the call assigns changes a variable, and no loss stays in a layer.

    Args:
        model: A built model.
        pairs: Variables and their values, with all trainable variables among them.
        x: The inputs.
        training: Whether dropout is active.
        batch_statistics: Whether each BatchNormalization uses the statistics of this
            batch, and moves its own to them at once, or uses its own. One that is
            frozen uses its own.
    """

    def flagged(layer: keras.Layer, call: Callable, *args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs | {"training": batch_statistics})

    norms = batch_norms(model)
    flag = {"training": training} if model._call_has_training_arg else {}
    scope = _Recorded(pairs)
    changes = calls_through(norms, flagged), _without_momentum(norms)
    with scope, changes[0], changes[1], _exact_moments():
        outputs = model(x, **flag)
        unread = [v for v in model.trainable_variables if id(v) not in scope.read]
        penalty = _sum(model._get_regularization_losses())
    tensors = keras.tree.flatten(outputs)
    mask = get_keras_mask(tensors[0]) if len(tensors) == 1 else None
    changed = [scope.state_mapping[id(variable)] for variable, _ in pairs]
    return Call(outputs, mask, _sum(scope.losses), penalty, changed, unread)


def value_and_gradients(function: Callable, values: list) -> tuple[Any, list, Any]:
    """Return a scalar, its gradients at tensors, and what else the function returns.

    The gradients are not constants: they can be differentiated again. A gradient is
    None on TensorFlow, and zeros on JAX, if the scalar does not depend on the tensor.

    Args:
        function: A function of a list of tensors. It returns a scalar, and a structure
            of tensors.
        values: The tensors.
    """
    if on_jax():
        import jax

        (value, rest), slopes = jax.value_and_grad(function, has_aux=True)(values)
        return value, slopes, rest
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        value, rest = function(values)
    slopes = tape.gradient(value, values)
    dense = [None if x is None else ops.convert_to_tensor(x) for x in slopes]
    return value, dense, rest


def values_now(variables: Sequence[keras.Variable]) -> list:
    """Return the values of variables as tensors of their own dtype."""
    with no_autocast():
        values = [variable.value for variable in variables]
    if on_jax():
        return values
    import tensorflow as tf

    # A variable counts as a tensor in `ops.convert_to_tensor`.
    return [tf.identity(value) for value in values]


def batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Return the BatchNormalization layers of a model."""
    kind = keras.layers.BatchNormalization
    return [layer for layer in flat_layers(model) if isinstance(layer, kind)]


@contextlib.contextmanager
def _without_momentum(norms: Sequence[keras.Layer]) -> Iterator[None]:
    """Let a BatchNormalization replace its statistics by those of the batch."""
    before = [layer.momentum for layer in norms]
    try:
        for layer in norms:
            layer.momentum = 0.0
        yield
    finally:
        for layer, momentum in zip(norms, before, strict=True):
            layer.momentum = momentum


@contextlib.contextmanager
def _exact_moments() -> Iterator[None]:
    """Let normalization layers have second derivatives on TensorFlow.

    `tf.nn.moments` stops the gradient of the mean in the variance. The first derivative
    is right, but the second is not.
    """
    if on_jax():
        yield
        return
    from keras.src.backend.tensorflow import nn

    stock = nn._compute_moments
    nn._compute_moments = _moments
    try:
        yield
    finally:
        nn._compute_moments = stock


def _moments(x: Any, axes: Any, keepdims: bool) -> tuple[Any, Any]:
    mean = ops.mean(x, axes, keepdims=True)
    variance = ops.mean(ops.square(x - mean), axes, keepdims=keepdims)
    return mean if keepdims else ops.squeeze(mean, axes), variance


def _sum(losses: Sequence) -> Any:
    total = ops.zeros(())
    for loss in losses:
        total = total + ops.sum(ops.cast(loss, "float32"))
    return total
