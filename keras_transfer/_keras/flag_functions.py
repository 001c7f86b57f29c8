"""The functions of a model that hold its trainable flags."""

from typing import Any

import keras

from keras_transfer._keras.backends import on_jax
from keras_transfer._keras.layers import flags
from keras_transfer._keras.tracing import KINDS
from keras_transfer._keras.tracing import remake_functions


def flag_key(model: keras.Model) -> tuple:
    """Return the trainable flags of the layers and weights of a model."""
    return flags(model), tuple(weight.trainable for weight in model.weights)


def outputs_key(model: keras.Model) -> tuple | None:
    """Return the flags if the functions for `evaluate` and `predict` hold them.

    They do on JAX, where the flags choose the place of each variable in the state.
    """
    return flag_key(model) if on_jax() else None


class FlagFunctions:
    """One set of functions for each choice of trainable flags, each traced once."""

    def __init__(self) -> None:
        self._kept: dict[tuple, dict[str, Any]] = {}
        self._kinds = KINDS if on_jax() else ("train",)

    def clear(self) -> None:
        """Forget all functions."""
        self._kept.clear()

    def use(self, model: keras.Model) -> None:
        """Give a model the functions for the flags that it has now.

        `fit` reads the functions at each step, so it is enough to replace them.
        """
        if model.train_function not in [each["train"] for each in self._kept.values()]:
            self.clear()  # compiled again, or changed by another callback
        key = flag_key(model)
        if key not in self._kept:
            remake_functions(model, *self._kinds)
            self._kept[key] = {
                kind: getattr(model, f"{kind}_function") for kind in self._kinds
            }
        for kind, function in self._kept[key].items():
            setattr(model, f"{kind}_function", function)
