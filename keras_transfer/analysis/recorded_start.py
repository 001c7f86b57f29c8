"""The weights a model started from, kept aside so that a report can compare."""

import weakref

import keras
import numpy as np

from keras_transfer._keras import value


class Start:
    """What each weight of a model held when it was recorded, found by identity.

    Args:
        name: String, the name of the model.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        # By id, since == of variables is elementwise. The reference tells a variable
        # from a later one at the same address, and keeps none alive.
        self._values: dict[int, tuple[weakref.ref, np.ndarray]] = {}

    def add(self, variables: list[keras.Variable]) -> None:
        """Copy the values of those of `variables` that are not yet recorded."""
        self._values = {k: v for k, v in self._values.items() if v[0]() is not None}
        for variable in variables:
            if self.get(variable) is None:
                copy = np.array(value(variable))
                self._values[id(variable)] = (weakref.ref(variable), copy)

    def get(self, variable: keras.Variable) -> np.ndarray | None:
        """Return what `variable` held, or None if it was not there."""
        reference, array = self._values.get(id(variable), (None, None))
        return array if reference and reference() is variable else None


# The models are not kept alive, and nothing of this is saved with them.
_starts: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def record_start(model: keras.layers.Layer, *, again: bool = False) -> None:
    """Keep a copy of the weights of `model`, to be compared with after training.

    `report` then tells how far each group has moved. `GradualUnfreezing` and
    `fine_tune` call this before they train; call it yourself before a plain `fit`.
    The copy costs as many bytes of host memory as the weights do, for as long as the
    model lives: 91 MB for the 22.7 million float32 parameters of MiniLM. It is no
    part of the model, so it is not saved with it.

    Args:
        model: A built model or layer.
        again: True replaces an earlier record. Default False: what was recorded
            stays, and only weights that were added since are recorded now.

    Raises:
        TypeError: If `model` is not a Keras layer.
        ValueError: If it is not built, so that it has no weights yet.

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
        with Convolutional Networks, arXiv:1802.01483: the start as what transfer
        learning is to be measured from.
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
        _starts.pop(model, None)  # so that it becomes the latest
        _starts[model] = Start(model.name)
    _starts[model].add(model.weights)


def start_of(model: keras.layers.Layer) -> Start | None:
    """Return what was recorded of `model`, or None.

    Of a model that was never recorded itself it is the latest record of a living model
    that has some of its weights: a part of it, or a larger one that holds it.
    """
    if model in _starts:
        return _starts[model]
    for start in reversed(list(_starts.values())):
        if any(start.get(variable) is not None for variable in model.weights):
            return start
    return None
