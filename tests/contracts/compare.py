"""Comparisons for contracts: structures of arrays, outputs and training."""

import keras
import numpy as np

from tests.contracts.compute import ON_TENSORFLOW


def arrays(structure):
    """Return the leaves of a structure of tensors as NumPy arrays."""
    # NumPy warns about a variable of JAX.
    leaves = [getattr(x, "value", x) for x in keras.tree.flatten(structure)]
    return [keras.ops.convert_to_numpy(x) for x in leaves]


def array(tensor):
    """Return a tensor or a Variable as a NumPy array."""
    (only,) = arrays(tensor)
    return only


def assert_close(actual, expected, atol=0.0):
    """Fail unless two structures contain the same arrays within `atol`."""
    actual, expected = arrays(actual), arrays(expected)
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def run(model, inputs):
    """Return the outputs of `model` in inference mode, called eagerly."""
    return model(inputs, training=False)


def fit(model, x, y, **kwargs):
    """Fit in a fixed order with a batch size of 4, and return the history."""
    settings = dict(batch_size=4, epochs=1, shuffle=False, verbose=0) | kwargs
    if not settings.get("callbacks"):  # they may choose what the optimizer trains
        build(model, x, y, settings["batch_size"])
    return model.fit(x, y, **settings)


def build(model, x, y, batch_size=4):
    """Create the variables of the optimizer and the metrics of a compiled model.

    Without them, `fit` traces the train step of TensorFlow twice, which takes twice the
    time. Keras itself creates them before `fit` on JAX and for several replicas.
    """
    if ON_TENSORFLOW and not model.run_eagerly:
        given = (x,) if y is None else (x, y)
        batch = keras.tree.map_structure(lambda rows: rows[:batch_size], given)
        with model.distribute_strategy.scope():
            model._symbolic_build(data_batch=batch)
