"""Sums of squared gradients, one example at a time, on the backend of Keras."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
from keras.src.backend import StatelessScope

from keras_transfer._keras.backends import on_jax
from keras_transfer._keras.layers import all_variables
from keras_transfer._keras.layers import flat_layers
from keras_transfer._keras.layers import parts_of

# Gradients of float16 below 6e-8 become 0, so they are computed at this scale.
HALF_SCALE = 2.0**8


def squared_gradients(
    model: keras.Model, variables: Sequence[keras.Variable], function: Callable
) -> Callable[[Any, Any], list]:
    """Return a function from a batch to sums of squared gradients of each variable.

    For the outputs of one example, `function(outputs, draw)` returns values and their
    weights, two vectors of length K. The result of a batch `(x, draws)` is the sum over
    its examples and over K of `weight * gradient(value)**2`, in float32. A gradient of
    the mean over a batch could not give this sum.

    Args:
        model: A model, which is called in inference mode.
        variables: Variables of the model. A variable that the values do not depend on
            gets zeros.
        function: A function of `keras.ops`.
    """
    half = "float16" in {each.compute_dtype for each in flat_layers(model)}
    scale = HALF_SCALE if half else 1.0
    make = _on_jax if on_jax() else _on_tensorflow
    return make(model, list(variables), function, scale)


def _on_tensorflow(
    model: keras.Model, variables: list, function: Callable, scale: float
) -> Callable:
    import tensorflow as tf

    # Outside of a replica, the model reads the first copy of a mirrored variable.
    sources = [parts_of(variable)[0] for variable in variables]

    def of_one(x: Any, draw: Any) -> list:
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(sources)
            values, weights = function(model(x, training=False), draw)
            parts = tf.unstack(values * scale)
        found = [tf.zeros(source.shape) for source in sources]
        for part, weight in zip(parts, tf.unstack(weights), strict=True):
            gradients = tape.gradient(part, sources)
            for place, each in enumerate(gradients):
                if each is not None:
                    each = tf.cast(tf.convert_to_tensor(each), "float32") / scale
                    found[place] += weight * tf.square(each)
        return found

    @tf.function(reduce_retracing=True)
    def of_batch(x: Any, draws: Any) -> list:
        count = tf.shape(draws)[0]

        def step(number: Any, sums: list) -> tuple:
            part = slice(number, number + 1)
            one = keras.tree.map_structure(lambda rows: rows[part], x)
            found = of_one(one, draws[number])
            return number + 1, [a + b for a, b in zip(sums, found, strict=True)]

        start = 0, [tf.zeros(source.shape) for source in sources]
        # One example at a time, so only one gradient is in memory.
        return tf.while_loop(
            lambda number, _: number < count, step, start, parallel_iterations=1
        )[1]

    def tensors(x: Any, draws: Any) -> list:
        return of_batch(
            keras.tree.map_structure(tf.convert_to_tensor, x),
            tf.convert_to_tensor(draws, "float32"),
        )

    return tensors


def _on_jax(
    model: keras.Model, variables: list, function: Callable, scale: float
) -> Callable:
    import jax

    chosen = {id(variable) for variable in variables}
    others = [each for each in all_variables(model) if id(each) not in chosen]

    @jax.jit
    def of_batch(learned: list, fixed: list, x: Any, draws: Any) -> list:
        def values(learned: list, one: Any, draw: Any) -> tuple:
            pairs = zip([*variables, *others], [*learned, *fixed], strict=True)
            with StatelessScope(state_mapping=list(pairs)):
                found, weights = function(model(one, training=False), draw)
            return found * scale, weights

        def step(number: Any, sums: list) -> list:
            one = jax.tree.map(
                lambda rows: jax.lax.dynamic_slice_in_dim(rows, number, 1), x
            )
            slopes, weights = jax.jacrev(values, has_aux=True)(
                learned, one, draws[number]
            )
            return [
                a + jax.numpy.tensordot(weights, (slope / scale) ** 2, 1)
                for a, slope in zip(sums, slopes, strict=True)
            ]

        start = [jax.numpy.zeros(each.shape) for each in learned]
        return jax.lax.fori_loop(0, len(draws), step, start)

    def arrays(x: Any, draws: Any) -> list:
        values = [variable.value for variable in variables]
        rest = [variable.value for variable in others]
        x = keras.tree.map_structure(jax.numpy.asarray, x)
        return of_batch(values, rest, x, jax.numpy.asarray(draws, "float32"))

    return arrays
