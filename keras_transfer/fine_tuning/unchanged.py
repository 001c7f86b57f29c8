"""Restore a model after a training that failed."""

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


@contextlib.contextmanager
def unchanged_after_error(
    model: keras.Model, variables: Iterable[keras.Variable]
) -> Iterator[None]:
    """Restore everything that a training changes in a model if it ends with an error.

    This covers `variables`, the variables that change without a gradient, flags, the
    optimizer, the compiled functions and the class names. The copy of the variables
    needs host memory during the training. An interrupt is not an error, so the model
    then keeps its trained weights.

    Args:
        model: A built and compiled model.
        variables: The variables that any phase may train.
    """
    changing = [*variables, *_keras.untrained(model)]
    changing = list({id(variable): variable for variable in changing}.values())
    values = _keras.snapshot(changing)
    layers = _keras.flags(model)
    weights = [weight.trainable for weight in model.weights]
    names = class_names_of(model)
    attributes = {name: getattr(model, name, ABSENT) for name in ATTRIBUTES}
    with _keras.optimizer_kept(model, Exception):
        try:
            yield
        except Exception:
            _keras.set_flags(model, layers, weights)
            _keras.restore(changing, values)
            remember_class_names(model, names)
            model.reset_metrics()
            for name, value in attributes.items():
                if value is not ABSENT:
                    setattr(model, name, value)
                elif hasattr(model, name):
                    delattr(model, name)
            raise
