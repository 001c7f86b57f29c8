"""The features of a model that is exported: its backbone, pooled."""

from __future__ import annotations

import keras

from keras_transfer import _keras
from keras_transfer.backbones.features import features
from keras_transfer.backbones.features import POOLINGS
from keras_transfer.backbones.frozen import FrozenBackbone


def features_of(model: keras.Model, pooling: bool | str) -> keras.Model:
    """Return the model from the inputs of `model` to one vector per example.

    Args:
        model: A model with a `backbone`, or with one model inside.
        pooling: As in `kt.backbones.features`; True for the pooling of a
            `TransferClassifier`, and `"auto"` for others.

    Raises:
        ValueError: If no backbone is found.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, (keras.Model, FrozenBackbone)):
        kinds = (keras.Model, FrozenBackbone)
        inside = [x for x in _keras.sublayers(model) if isinstance(x, kinds)]
        if len(inside) != 1:
            raise ValueError(
                f"features was asked for, but '{model.name}' has no `backbone`, and "
                f"{len(inside)} models inside. Make a kt.models.TransferClassifier of "
                "the backbone, or export kt.backbones.features(backbone) itself."
            )
        (backbone,) = inside
    if pooling is True:
        # keras-hub's Tasks have a `pooling` too, with other words.
        own = getattr(model, "pooling", "auto")
        pooling = own if own in POOLINGS else "auto"
    return features(backbone, pooling)
