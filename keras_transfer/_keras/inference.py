"""A network in inference, compiled once for batches of any size."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_transfer._keras.backends import on_jax
from keras_transfer._keras.layers import flat_layers


def inference(
    network: keras.Model, finish: Callable, example: Any, *, any_length: bool
) -> tuple[Callable, bool]:
    """Return a compiled function of inputs, and whether each shape is compiled again.

    Args:
        network: The built network.
        finish: Function of the outputs, which is compiled too.
        example: The inputs of one batch.
        any_length: Whether the second axis of the inputs may change.
    """
    if on_jax():
        return _on_jax(network, finish), True
    # XLA is faster only on an accelerator. Keras does not use it on a CPU either.
    xla = bool(tf.config.list_physical_devices("GPU"))
    xla = xla and all(layer.supports_jit for layer in flat_layers(network))

    @tf.function(jit_compile=xla, reduce_retracing=True)
    def forward(x: Any) -> Any:
        return finish(network(x, training=False))

    # This saves a second trace. All axes except the batch may still change.
    axes = (None,) if any_length else None
    signature = keras.tree.map_structure(
        lambda x: tf.TensorSpec([None, *(axes or x.shape[1:])], x.dtype), example
    )
    forward.get_concrete_function(signature)

    def run(x: Any) -> Any:
        return forward(keras.tree.map_structure(tf.convert_to_tensor, x))

    return run, xla


def _on_jax(network: keras.Model, finish: Callable) -> Callable:
    import jax

    variables = network.variables

    @jax.jit
    def forward(values: list, x: Any) -> Any:
        with keras.StatelessScope(zip(variables, values, strict=True)):
            return finish(network(x, training=False))

    def run(x: Any) -> Any:
        return forward([each.value for each in variables], x)

    return run
