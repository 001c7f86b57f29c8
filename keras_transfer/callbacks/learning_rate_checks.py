"""Whether a model and a range can be tested for a learning rate."""

from __future__ import annotations

import math

import keras

from keras_transfer import _keras
from keras_transfer._arguments import number
from keras_transfer._arguments import whole_number


def check_model(model: keras.Model) -> None:
    """Check that a model has weights and one optimizer to test.

    Raises:
        TypeError: If it is not a model.
        ValueError: If it is not compiled, not built, frozen, or has several optimizers.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"model={model!r} is not a Keras model.")
    if not model.compiled or model.optimizer is None:
        raise ValueError(
            f"The model {model.name!r} is not compiled, so it has no loss and no "
            "optimizer to test. Call model.compile(optimizer, loss) first."
        )
    preprocessor = getattr(model, "preprocessor", None)  # of a Task; without weights
    skipped = _keras.flat_layers(preprocessor) if preprocessor else []
    skipped = {id(layer) for layer in skipped}
    unbuilt = [
        layer.name
        for layer in _keras.flat_layers(model)
        if not layer.built and id(layer) not in skipped and _builds(layer)
    ]
    if unbuilt:
        raise ValueError(
            f"The model {model.name!r} is not built, so {unbuilt[:5]} may have no "
            "weights yet that could be put back. Call it on one batch first, or give "
            "it an Input."
        )
    if not model.trainable_variables:
        raise ValueError(
            f"All of the model {model.name!r} is frozen, so no rate would change its "
            "loss. Make trainable what you will train, and compile again."
        )
    several = getattr(keras.optimizers, "MultiOptimizer", ())
    own = [
        name
        for name, value in vars(model).items()
        if isinstance(value, keras.Optimizer) and value is not model.optimizer
    ]
    if own or isinstance(model.optimizer, several):
        raise ValueError(
            f"The model {model.name!r} has several optimizers, {own or 'in one'}, so "
            "there is no one rate to find. Different rates for parts of a model come "
            "from one keras_transfer.optimizers.discriminative optimizer."
        )


def check_range(lowest: float, highest: float, steps: int, smoothing: float) -> None:
    """Check the numbers of a test.

    Raises:
        ValueError: If one is out of its range.
    """
    if not 0 < lowest < highest < math.inf:
        raise ValueError(
            f"lowest={lowest} and highest={highest} are not a range of learning rates. "
            "They must be finite, above 0, and `lowest` below `highest`."
        )
    why = "fewer points do not show where the loss falls"
    whole_number("steps", steps, 10, why=why)
    number("smoothing", smoothing, 0, below=1)


def _builds(layer: keras.Layer) -> bool:
    """Return whether a layer makes weights when it is built.

    `TextVectorization` never builds the lookup within it, which has none.
    """
    return type(layer).build is not keras.Layer.build
