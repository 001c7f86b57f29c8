"""Gradients and compiled functions on the backend of Keras, and marks for one backend.

On JAX, a function must not change variables while it is compiled.
"""

import keras
import pytest
import tensorflow as tf

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
# The dtype of integers in Keras, such as the steps of an optimizer: JAX has 32 bits.
INTEGER = keras.backend.standardize_dtype("int")


def tensorflow_only(reason):
    """Return a mark that skips a test on other backends, for a reason."""
    return pytest.mark.skipif(not ON_TENSORFLOW, reason=reason)


exports = tensorflow_only("tf.saved_model is TensorFlow's")
wide = tensorflow_only("JAX has 32 bits")


def tensors(structure):
    """Return a structure of arrays as tensors."""
    return keras.tree.map_structure(keras.ops.convert_to_tensor, structure)


def value_and_gradients(function, *inputs, upstream=None):
    """Return the value of a function, and the gradient for each tensor of the inputs.

    The gradients are a flat list, with zeros where the value does not depend on a
    tensor. `upstream` is the gradient for the value, which is 1 by default.
    """
    leaves = keras.tree.flatten(inputs)

    def flat(*leaves):
        return function(*keras.tree.pack_sequence_as(inputs, leaves))

    if ON_TENSORFLOW:
        with tf.GradientTape() as tape:
            tape.watch(leaves)
            value = flat(*leaves)
        found = tape.gradient(value, leaves, upstream, unconnected_gradients="zero")
        return value, found
    import jax

    value, pull_back = jax.vjp(flat, *leaves)
    upstream = keras.ops.ones_like(value) if upstream is None else upstream
    return value, list(pull_back(upstream))


def weight_gradients(function, variables, unconnected="none"):
    """Return the gradients of `function()` for Keras variables.

    `unconnected` is what TensorFlow returns for a variable that the value does not
    depend on: "none" or "zero". JAX returns zeros.
    """
    values = [variable.value for variable in variables]
    if ON_TENSORFLOW:
        with tf.GradientTape() as tape:
            value = function()
        return tape.gradient(value, values, unconnected_gradients=unconnected)
    import jax

    def pure(values):
        pairs = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            return function()

    return jax.grad(pure)(values)


def sync(model):
    """Give the variables of a model their values in a callback, after a batch.

    On JAX they have none while `fit` runs the steps of an epoch.
    """
    if not ON_TENSORFLOW:
        model.jax_state_sync()


def compiled(function, jit_compile=True):
    """Return a function that is compiled by XLA, or else is a graph of TensorFlow.

    JAX has no other graphs, so there the function without XLA stays as it is.
    """
    if ON_TENSORFLOW:
        return tf.function(function, jit_compile=jit_compile)
    import jax

    return jax.jit(function) if jit_compile else function
