"""Record the weights of a model before training, so a report can compare them."""

import weakref

import keras
import numpy as np

from keras_transfer._keras import value


class Start:
    """The recorded value of each weight of a model, looked up by identity.

    Args:
        name: String, the name of the model.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        # Keys are ids, because == of variables is elementwise. A weak reference shows
        # whether an id still belongs to the same variable, and keeps none alive.
        self._values: dict[int, tuple[weakref.ref, np.ndarray]] = {}

    def add(self, variables: list[keras.Variable]) -> None:
        """Copy the values of all `variables` that are not recorded yet."""
        self._values = {k: v for k, v in self._values.items() if v[0]() is not None}
        for variable in variables:
            if self.get(variable) is None:
                copy = np.array(value(variable))
                self._values[id(variable)] = (weakref.ref(variable), copy)

    def get(self, variable: keras.Variable) -> np.ndarray | None:
        """Return the recorded value of `variable`, or None if there is no record."""
        reference, array = self._values.get(id(variable), (None, None))
        return array if reference and reference() is variable else None


# A record does not keep its model alive, and is not saved with the model.
_starts: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def record_start(model: keras.layers.Layer, *, again: bool = False) -> None:
    """Copy the weights of `model`, so `report` can compare them after training.

    `report` then shows how far each layer group has moved. `GradualUnfreezing` and
    `fine_tune` call this function before they train. Call it yourself before a plain
    `fit`. The copy takes as many bytes of host memory as the weights, until the model
    is deleted. For MiniLM with 22.7 million float32 parameters, this is 91 MB. The copy
    is not part of the model and is not saved with it.

    Args:
        model: A built Keras model or layer.
        again: Bool, whether to replace an earlier record. Defaults to `False`, which
            keeps the earlier record and only adds weights that are new since then.

    Raises:
        TypeError: If `model` is not a Keras layer.
        ValueError: If `model` is not built and has no weights yet.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        kt.analysis.record_start(model)
        model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
        print(kt.report(model))
        ```

    Reference:
        Li, Grandvalet and Davoine 2018, Explicit Inductive Bias for Transfer Learning
        with Convolutional Networks, arXiv:1802.01483 (the distance from the start).
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(
            f"record_start expects a Keras model or layer, not {type(model).__name__}."
        )
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so it has no weights to record. "
            "Call it once on a batch, or give a Sequential a `keras.Input`."
        )
    if again or model not in _starts:
        _starts.pop(model, None)  # the new record becomes the latest
        _starts[model] = Start(model.name)
    _starts[model].add(model.weights)


def start_of(model: keras.layers.Layer) -> Start | None:
    """Return the recorded start of `model`, or None.

    If `model` itself was never recorded, return the latest record that has some of its
    weights. The record can be of a part of `model`, or of a larger model that contains
    `model`.
    """
    if model in _starts:
        return _starts[model]
    for start in reversed(list(_starts.values())):
        if any(start.get(variable) is not None for variable in model.weights):
            return start
    return None
