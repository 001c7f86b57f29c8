"""Ordered: the weights of a layer in the order they had before some were held."""

from __future__ import annotations

import contextlib

import keras

from keras_transfer import _keras
from keras_transfer.adapters.in_place import frozen_weights


class Ordered:
    """Mixin in front of a layer class, for layers of which a part of the weights learn.

    Keras lists what learns before what does not, and most layers save their weights by
    number. Without this the beta of a normalisation whose gamma is held would come
    first, and a file of the base model, or `set_weights`, would swap the two.
    """

    @property
    def weights(self) -> list[keras.Variable]:
        """All weights, those of the layer itself as before."""
        return _sorted(self, super().weights)

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables, those of the layer itself as before."""
        return _sorted(self, super().variables)

    def save_own_variables(self, store: dict) -> None:
        """Store the weights of the layer itself as before."""
        with _in_order(self):
            super().save_own_variables(store)

    def load_own_variables(self, store: dict) -> None:
        """Load what `save_own_variables` of the base layer stored."""
        with _in_order(self):
            super().load_own_variables(store)


def _order(layer: keras.Layer) -> list[keras.Variable]:
    """Return the own weights in their first order, or none if that is theirs now."""
    before, learning = frozen_weights.before(layer), _keras.learnable(layer)
    if before is None or not learning or len(learning) == len(before.variables):
        return []
    first = {id(each) for each in before.variables}
    rest = [each for each in _keras.own_weights(layer) if id(each) not in first]
    return [*before.variables, *rest]


def _sorted(layer: keras.Layer, found: list) -> list:
    order = _order(layer)
    return [*order, *found[len(order) :]]  # its own are the first


def _in_order(layer: keras.Layer) -> contextlib.AbstractContextManager:
    order = _order(layer)
    if not order:
        return contextlib.nullcontext()
    return _keras.listed(layer, order[: len(frozen_weights.before(layer).variables)])
