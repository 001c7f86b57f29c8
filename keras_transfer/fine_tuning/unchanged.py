"""Restore a model after a training that failed, or that was only a trial."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from collections.abc import Iterator

import keras

from keras_transfer import _keras
from keras_transfer.data.class_names import class_names_of
from keras_transfer.data.class_names import remember_class_names

# Attributes that `fit` sets on a model. Attributes that were absent are deleted.
ATTRIBUTES = (
    "train_function",
    "test_function",
    "predict_function",
    "stop_training",
    "history",
)
ABSENT = object()


class ModelState:
    """Everything that a training changes in a model.

    This covers `variables`, the variables that change without a gradient, flags, the
    optimizer, the compiled functions and the class names. The copy of the variables
    needs host memory.

    Args:
        model: A built and compiled model.
        variables: The variables that may train.
    """

    def __init__(self, model: keras.Model, variables: Iterable[keras.Variable]) -> None:
        self.model = model
        changing = [*variables, *_keras.untrained(model)]
        self.variables = list({id(each): each for each in changing}.values())
        self.values = _keras.snapshot(self.variables)
        self.flags = _keras.flags(model), [each.trainable for each in model.weights]
        self.names = class_names_of(model)
        self.attributes = {name: getattr(model, name, ABSENT) for name in ATTRIBUTES}
        self.optimizer = _keras.CompiledOptimizer(model)

    def restore_weights(self) -> None:
        """Give the model these weights and flags again."""
        _keras.set_flags(self.model, *self.flags)
        _keras.restore(self.variables, self.values)

    def restore(self) -> None:
        """Give the model this state again."""
        model = self.model
        self.restore_weights()
        remember_class_names(model, self.names)
        model.reset_metrics()
        for name, value in self.attributes.items():
            if value is not ABSENT:
                setattr(model, name, value)
            elif hasattr(model, name):
                delattr(model, name)
        self.optimizer.restore()


@contextlib.contextmanager
def unchanged_after_error(
    model: keras.Model, variables: Iterable[keras.Variable]
) -> Iterator[ModelState]:
    """Restore everything that a training changes in a model if it ends with an error.

    An interrupt is not an error, so the model then keeps its trained weights.

    Args:
        model: A built and compiled model.
        variables: The variables that any phase may train.
    """
    state = ModelState(model, variables)
    try:
        yield state
    except Exception:
        state.restore()
        raise
