"""The signatures of a model: what goes in, and the features that come out."""

from __future__ import annotations

import keras

from keras_transfer import _keras
from keras_transfer.backbones.features import features
from keras_transfer.backbones.features import POOLINGS
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.export.image_bytes import image_entries
from keras_transfer.export.image_bytes import ImageBytes
from keras_transfer.export.raw_text import RawText
from keras_transfer.export.request import Entry
from keras_transfer.export.request import inputs_of
from keras_transfer.export.request import plain_entry


def entries_of(
    model: keras.Model, preprocessor: object, samples: object
) -> dict[str, Entry]:
    """Return the ways into `model` by the name of their signature.

    `serving_default` takes what `predict` takes. Where that is raw, `preprocessed`
    takes the model's own inputs; `image_bytes` takes files.

    Args:
        model: A model.
        preprocessor: As in `kt.export_serving`.
        samples: As in `kt.export_serving`.

    Raises:
        TypeError: If the preprocessor is nothing that can be called.
        ValueError: If the model's inputs are not known.
    """
    own = preprocessor is None
    if own:
        preprocessor = getattr(model, "preprocessor", None)
    if preprocessor is None or preprocessor is False:
        return {"serving_default": plain_entry(model, samples)}
    if inputs_of(model) is None:
        raise ValueError(
            f"{type(model).__name__} '{model.name}' is not functional, so nothing "
            "tells what the preprocessor is to give. Make keras.Model(inputs, outputs) "
            "of it."
        )
    plain = plain_entry(model)
    if isinstance(preprocessor, ImageBytes):
        return {"serving_default": plain, "image_bytes": preprocessor.entry(plain)}
    if not isinstance(preprocessor, RawText):
        if _converts_images(preprocessor, own):
            return image_entries(preprocessor, plain)
        preprocessor = RawText(preprocessor)
    return {"serving_default": preprocessor.entry(plain), "preprocessed": plain}


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


def _converts_images(preprocessor: object, own: bool) -> bool:
    """Return whether a keras-hub preprocessor is one of images, not of text."""
    parts = ("tokenizer", "image_converter", "audio_converter")
    found = [each for each in parts if getattr(preprocessor, each, None) is not None]
    if len(found) > 1 or found == ["audio_converter"]:
        raise ValueError(
            f"{type(preprocessor).__name__} has {found}. Text alone and images alone "
            "can be put in front of the model. Pass preprocessor=False to export the "
            "model's own inputs, and preprocess before the request."
        )
    if own and not found:
        raise ValueError(
            f"{type(preprocessor).__name__} has neither a tokenizer nor an "
            "image_converter. Pass preprocessor=False, or kt.export.RawText of it."
        )
    return found == ["image_converter"]
