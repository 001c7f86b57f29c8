"""A model as it was, after a training that failed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from collections.abc import Iterator

import keras

from keras_transfer import _keras
from keras_transfer.data.class_names import class_names_of
from keras_transfer.data.class_names import remember_class_names

# What `fit` sets on a model; absent ones are taken away again.
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
    """Give a compiled model back all that a training changes if an error ends it.

    That is `variables`, all that no gradient changes, flags, the optimizer, the
    compiled functions, and the names of the classes. The copy takes as many bytes of
    host memory meanwhile. An interrupt is not an error: what was trained till then
    stays.

    Args:
        model: A built and compiled model.
        variables: The variables that may learn.
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
