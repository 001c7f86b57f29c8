"""Checks of the arguments of `find_learning_rate`."""

from __future__ import annotations

import math

import keras

from keras_transfer import _keras
from keras_transfer._arguments import number
from keras_transfer._arguments import whole_number


def check_model(model: keras.Model) -> None:
    """Check that a model has trainable weights and exactly one optimizer.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If the model is not compiled, not built, completely frozen, or has
            several optimizers.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"model={model!r} is not a Keras model. Pass a keras.Model.")
    if not model.compiled or model.optimizer is None:
        raise ValueError(
            f"The model {model.name!r} is not compiled, so it has no loss and no "
            "optimizer to test. Call model.compile(optimizer, loss) first."
        )
    # The preprocessor of a keras_hub Task has no weights.
    preprocessor = getattr(model, "preprocessor", None)
    skipped = _keras.flat_layers(preprocessor) if preprocessor else []
    skipped = {id(layer) for layer in skipped}
    unbuilt = [
        layer.name
        for layer in _keras.flat_layers(model)
        if not layer.built and id(layer) not in skipped and _builds(layer)
    ]
    if unbuilt:
        raise ValueError(
            f"The model {model.name!r} is not built: {unbuilt[:5]} may have no weights "
            "yet, so the test could not restore them. Call the model on one batch "
            "first, or add an Input."
        )
    if not model.trainable_variables:
        raise ValueError(
            f"The whole model {model.name!r} is frozen, so no learning rate would "
            "change its loss. Set trainable=True on the layers that you will train, "
            "and compile again."
        )
    several = getattr(keras.optimizers, "MultiOptimizer", ())
    own = [
        name
        for name, value in vars(model).items()
        if isinstance(value, keras.Optimizer) and value is not model.optimizer
    ]
    if own or isinstance(model.optimizer, several):
        raise ValueError(
            f"The model {model.name!r} has several optimizers, "
            f"{own or 'inside a MultiOptimizer'}, so there is no single learning rate "
            "to find. For different rates in parts of a model, compile with one "
            "keras_transfer.optimizers.discriminative optimizer."
        )


def check_range(lowest: float, highest: float, steps: int, smoothing: float) -> None:
    """Check the numbers of a range test.

    Raises:
        ValueError: If a number is out of its range.
    """
    if not 0 < lowest < highest < math.inf:
        raise ValueError(
            f"lowest={lowest} and highest={highest} are not a range of learning rates. "
            "Both must be finite and above 0, and `lowest` must be below `highest`."
        )
    why = "fewer points do not show where the loss falls"
    whole_number("steps", steps, 10, why=why)
    number("smoothing", smoothing, 0, below=1)


def _builds(layer: keras.Layer) -> bool:
    """Return whether a layer creates weights when it is built.

    `TextVectorization` never builds its inner lookup layer, which has no weights.
    """
    return type(layer).build is not keras.Layer.build
