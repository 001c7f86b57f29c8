"""Compile a copied model, so that it shares no state with the model."""

from __future__ import annotations

import keras

from keras_transfer import _keras
from keras_transfer.fine_tuning.adaptation.candidates import RATE
from keras_transfer.fine_tuning.rates import default_share


def compile_again(model: keras.Model, compiled: dict) -> None:
    """Compile a copy with the arguments of its model, and a new optimizer."""
    with _keras.scope(model):
        optimizer = keras.optimizers.Adam(RATE * default_share(model))
        model.compile(**compiled | {"optimizer": optimizer})
        # Keras cannot load a saved model whose optimizer has no slots.
        model.optimizer.build(model.trainable_variables)
