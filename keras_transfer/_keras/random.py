"""The random state of Python, NumPy, Keras and TensorFlow."""

import contextlib
import random
import sys
from collections.abc import Iterator

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.random import seed_generator

from keras_transfer._keras.layers import flat_layers
from keras_transfer._keras.layers import restore
from keras_transfer._keras.layers import snapshot


def seeds(model: keras.Model) -> list[keras.Variable]:
    """Return the states of the seed generators of `model`; Keras does not save them."""
    return [
        generator.state
        for layer in flat_layers(model)
        for generator in layer._seed_generators
    ]


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore the random state of Python, NumPy, Keras and TensorFlow at the end."""
    name = seed_generator.GLOBAL_SEED_GENERATOR
    keras_seed = global_state.get_global_attribute(name)
    keras_state = keras_seed and snapshot([keras_seed.state])
    python_state, numpy_state = random.getstate(), np.random.get_state()
    tensorflow_seed = None
    if "tensorflow" in sys.modules:  # also on JAX, where tf.data shuffles
        from tensorflow.python.eager import context

        # Exists only after a seed was set. Without a seed there is no state to restore.
        tensorflow_seed = getattr(context.context(), "_rng", None)
        tensorflow_state = tensorflow_seed and tensorflow_seed.getstate()
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        # A generator made in the block is removed. With Python's state restored, a new
        # generator would get the same seed.
        global_state.set_global_attribute(name, keras_seed)
        if keras_seed:
            restore([keras_seed.state], keras_state)
        if tensorflow_seed:
            tensorflow_seed.setstate(tensorflow_state)
