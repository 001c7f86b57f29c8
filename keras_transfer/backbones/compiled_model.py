"""A model that is ready for its first training: built, compiled, without updates."""

from __future__ import annotations

import keras

from keras_transfer import _keras


def check_compiled(model: keras.Model) -> None:
    """Check that a model is built and compiled, with a new optimizer.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If the model is not built or not compiled, or if its optimizer has
            made updates.
    """
    check_built(model)
    optimizer = _keras.inner_optimizer(model.optimizer)
    if _keras.value(optimizer.iterations) > 0:
        raise ValueError(
            f"The {type(optimizer).__name__} of the model has made updates already, "
            "so its moments and its schedule belong to an earlier training. Call "
            "model.compile() with a new optimizer."
        )


def check_built(model: keras.Model) -> None:
    """Check that a model is built and compiled.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If the model is not built or not compiled.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"model={model!r} is not a Keras model. Pass a keras.Model.")
    if not model.compiled or model.optimizer is None:
        raise ValueError(
            f"The model {model.name!r} is not compiled, so it has no loss and no "
            "optimizer. Call model.compile(optimizer, loss) first."
        )
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so it has no weights yet. Call "
            "the model on one batch first, or add an Input."
        )
