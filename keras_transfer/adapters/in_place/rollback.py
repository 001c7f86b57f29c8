"""A change of a model's structure that happens whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from keras_transfer import _keras
from keras_transfer.adapters import adapter_part as parts
from keras_transfer.adapters.in_place import adapted_layer
from keras_transfer.adapters.in_place import frozen_weights


@contextlib.contextmanager
def all_or_nothing(model: keras.Layer) -> Iterator[None]:
    """Give `model` its structure, flags and gates back if an error ends the block."""
    layers = _keras.flat_layers(model)
    flags, weights = _keras.flags(model), model.weights
    trainable = [each.trainable for each in weights]
    was = [
        (
            type(x),
            _keras.learnable(x),
            frozen_weights.before(x),
            dict(x.__dict__.get("_recipes", {})),
        )
        for x in layers
    ]
    had = {id(part): _keras.value(part.gate) for _, part in parts.all_parts(model)}
    try:
        yield
    except BaseException:
        for host, part in list(parts.all_parts(model)):
            if id(part) in had:
                part.gate.assign(had[id(part)])
            else:
                parts.take_away(host, part)
        for layer, (kind, learnable, before, recipes) in zip(layers, was, strict=True):
            adapted_layer.set_class(layer, kind)
            _keras.release(layer, learnable)
            frozen_weights.set_before(layer, before)
            layer.__dict__.pop("_recipes", None)
            if recipes:
                layer.__dict__["_recipes"] = recipes
        _keras.set_flags(model, flags, trainable)
        raise
