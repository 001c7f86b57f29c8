"""Compile a loaded model as before, even if it overrides compile()."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from keras_transfer import _keras

# An argument of compile() in keras-hub's language models: how they choose words.
SAMPLER = "sampler"


def sampler_config(model: keras.Model) -> dict:
    """Return the addition to the compile config of `model`: its sampler, if any.

    A sampler of an unregistered class is left out, because no other process can load
    the class.
    """
    sampler = getattr(model, SAMPLER, None)
    kind = type(sampler)
    name = keras.saving.get_registered_name(kind)
    if sampler is None or keras.saving.get_registered_object(name) is not kind:
        return {}
    return {SAMPLER: keras.saving.serialize_keras_object(sampler)}


def recompile(model: keras.Model, kind: type, config: Mapping) -> None:
    """Compile `model`, whose class without adapters is `kind`, from a saved config.

    If a class overrides compile(), as keras-hub's Tasks do, Keras only warns and drops
    the optimizer. This function keeps it.
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
        # The config has the arguments of keras.Model.compile. A Task's can differ.
        keras.Model.compile(model, **settings)
    else:
        model.compile(**settings)
    if sampler is not None:
        model.sampler = keras.saving.deserialize_keras_object(sampler)
        model.generate_function = None
    if model.optimizer is not None:
        with _keras.scope(model):
            model.optimizer.build(model.trainable_variables)
