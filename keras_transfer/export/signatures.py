"""The inputs of each signature of a model, and the model of the features."""

from __future__ import annotations

import keras

from keras_transfer import _keras
from keras_transfer.backbones.features import features
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.pool_output import POOLINGS
from keras_transfer.data.audio_preprocessor import AudioPreprocessor
from keras_transfer.export.image_bytes import image_entries
from keras_transfer.export.image_bytes import ImageBytes
from keras_transfer.export.raw_audio import audio_entry
from keras_transfer.export.raw_text import RawText
from keras_transfer.export.request import Entry
from keras_transfer.export.request import inputs_of
from keras_transfer.export.request import plain_entry

# Attributes of models. A Task of keras-hub has the first one.
PREPROCESSORS = (
    "preprocessor",
    "word_preprocessor",
    "audio_preprocessor",
    "text_preprocessor",
)


def entries_of(
    model: keras.Model, preprocessor: object, samples: object
) -> dict[str, Entry]:
    """Return the entries of `model` by the names of their signatures.

    `serving_default` takes what `predict` takes. If it runs a preprocessor,
    `preprocessed` takes the model's own inputs. `image_bytes` takes files.

    Args:
        model: A model.
        preprocessor: As in `kt.export_serving`.
        samples: As in `kt.export_serving`.

    Raises:
        TypeError: If the preprocessor is not callable.
        ValueError: If the model's inputs are unknown.
    """
    own = preprocessor is None
    if own:
        for name in PREPROCESSORS:
            preprocessor = preprocessor or getattr(model, name, None)
    if preprocessor is None or preprocessor is False:
        return {"serving_default": plain_entry(model, samples)}
    if inputs_of(model) is None:
        raise ValueError(
            f"{type(model).__name__} '{model.name}' is not functional, so the inputs "
            "that the preprocessor must return are unknown. Make a functional model, "
            "keras.Model(inputs, outputs), of it."
        )
    plain = plain_entry(model)
    if isinstance(preprocessor, AudioPreprocessor):
        entry = audio_entry(preprocessor, plain)
        return {"serving_default": entry, "preprocessed": plain}
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
        model: A model with an attribute `backbone`, or with exactly one model inside.
        pooling: As in `kt.backbones.features`. True means the pooling of a
            `TransferClassifier`, and `"auto"` for other models.

    Raises:
        ValueError: If the model has no backbone, or several models inside.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, (keras.Model, FrozenBackbone)):
        kinds = (keras.Model, FrozenBackbone)
        inside = [x for x in _keras.sublayers(model) if isinstance(x, kinds)]
        if len(inside) != 1:
            raise ValueError(
                f"features is set, but '{model.name}' has no `backbone`, and "
                f"{len(inside)} models inside. Make a kt.models.TransferClassifier of "
                "the backbone, or export kt.backbones.features(backbone) itself."
            )
        (backbone,) = inside
    if pooling is True:
        # The Tasks of keras-hub also have a `pooling`, with other values.
        own = getattr(model, "pooling", "auto")
        pooling = own if own in POOLINGS else "auto"
    found, inputs = features(backbone, pooling), inputs_of(model)
    if isinstance(inputs, dict) and set(inputs) > set(inputs_of(found)):
        # Such as the positions of words, which only the head of the model takes.
        return keras.Model(inputs, found({key: inputs[key] for key in found.input}))
    return found


def _converts_images(preprocessor: object, own: bool) -> bool:
    """Return whether a keras-hub preprocessor takes images instead of text."""
    parts = ("tokenizer", "image_converter", "audio_converter")
    found = [each for each in parts if getattr(preprocessor, each, None) is not None]
    if len(found) > 1 or found == ["audio_converter"]:
        raise ValueError(
            f"{type(preprocessor).__name__} has {found}. Only a preprocessor of text "
            "alone or of images alone can be exported. Pass preprocessor=False to "
            "export the model's own inputs, and preprocess before each request."
        )
    if own and not found:
        raise ValueError(
            f"{type(preprocessor).__name__} has neither a tokenizer nor an "
            "image_converter. Pass preprocessor=False to leave it out, or wrap it in "
            "kt.export.RawText."
        )
    return found == ["image_converter"]
