"""Compile a reloaded model as it was, also where its compile() is its own."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from keras_transfer import _keras

# How a language model of keras-hub chooses words: an argument of its own compile().
SAMPLER = "sampler"


def sampler_config(model: keras.Model) -> dict:
    """Return what to add to the compile config of `model`: its sampler, if it has one.

    One of a class that no other process could find is left out.
    """
    sampler = getattr(model, SAMPLER, None)
    kind = type(sampler)
    name = keras.saving.get_registered_name(kind)
    if sampler is None or keras.saving.get_registered_object(name) is not kind:
        return {}
    return {SAMPLER: keras.saving.serialize_keras_object(sampler)}


def recompile(model: keras.Model, kind: type, config: Mapping) -> None:
    """Compile `model`, of the class `kind` without adapters, by a saved config.

    Keras only warns where compile() is the model's own, as that of keras-hub's Tasks
    is, and drops the optimizer.
    """
    config = dict(config)
    sampler = config.pop(SAMPLER, None)
    own_compile = kind.compile is not keras.Model.compile
    own_config = kind.compile_from_config is not keras.Model.compile_from_config
    if not own_compile or own_config:
        kind.compile_from_config(model, config)
        return
    settings = keras.saving.deserialize_keras_object(config)
    if kind.__module__.partition(".")[0] == "keras_hub":
        # What is saved is what Keras was given; their arguments may be others.
        keras.Model.compile(model, **settings)
    else:
        model.compile(**settings)
    if sampler is not None:
        model.sampler = keras.saving.deserialize_keras_object(sampler)
        model.generate_function = None
    if model.optimizer is not None:
        with _keras.scope(model):
            model.optimizer.build(model.trainable_variables)
