"""Weights that adapters freeze: no trainable flag thaws them, and their order stays."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from collections.abc import Set

import keras

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.in_place.layer_state import first_state
from keras_transfer.adapters.in_place.layer_state import LayerState
from keras_transfer.adapters.in_place.layer_state import set_first_state
from keras_transfer.backbones.training_flags import train_only


def freeze(layer: keras.Layer, learning: Iterable[keras.Variable] = ()) -> bool:
    """Freeze the own weights of `layer`, but for those of `learning`.

    Returns:
        Whether the layer has to be upgraded for that. No flag of a variable stops a
        BatchNormalization from moving its averages, only its own: upgraded, it refuses
        that flag wherever it comes from. A layer of which a part learns has to keep its
        weights in order.
    """
    if first_state(layer) is None:
        set_first_state(layer, LayerState.of(layer))
    able = first_state(layer).learnable
    chosen = {id(variable) for variable in learning}
    free = [variable for variable in able if id(variable) in chosen]
    _keras.release(layer, free)
    return len(_keras.own_weights(layer)) > len(able) or 0 < len(free) < len(able)


def freeze_all_but(
    model: keras.Layer, spared: Set[int], learning: Iterable[keras.Variable]
) -> list[keras.Layer]:
    """Freeze `model` but for its parts, the layers `spared` (ids), and `learning`.

    Returns:
        The layers that have to be upgraded for that.
    """
    of_parts = {
        id(layer) for _, part in all_parts(model) for layer in _keras.flat_layers(part)
    }
    return [
        layer
        for layer in _keras.flat_layers(model)
        if id(layer) not in spared | of_parts
        and layer.weights
        and freeze(layer, learning)
    ]


def train_parts_and(
    model: keras.Layer, spared: Set[int], variables: Iterable[keras.Variable]
) -> None:
    """Train `variables` and the parts; freeze a layer of which nothing can learn.

    It stays as it is if it is one of `spared` (ids).
    """
    of_parts = [v for _, part in all_parts(model) for v in part.weights]
    train_only(model, [*variables, *of_parts])
    for layer in _keras.flat_layers(model):
        able = any(map(_keras.learnable, _keras.flat_layers(layer)))
        if layer.weights and not able and id(layer) not in spared:
            _keras.set_flag(layer, False)


def keep_frozen(model: keras.Layer) -> None:
    """Freeze again what is frozen, where a flag from above has reached it.

    A BatchNormalization would else move its statistics, which no flag of a variable
    can prevent.
    """
    for layer in _keras.flat_layers(model):
        if first_state(layer) and not any(
            map(_keras.learnable, _keras.flat_layers(layer))
        ):
            _keras.set_flag(layer, False)


class Ordered:
    """Mixin in front of a layer class, for layers of which a part of the weights learn.

    Keras lists what learns before what does not, and most layers save their weights by
    number. Without this the beta of a normalization whose gamma is held would come
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
    first, learning = first_state(layer), _keras.learnable(layer)
    if first is None or not learning or len(learning) == len(first.learnable):
        return []
    able = {id(variable) for variable in first.learnable}
    rest = [v for v in _keras.own_weights(layer) if id(v) not in able]
    return [*first.learnable, *rest]


def _sorted(layer: keras.Layer, variables: list) -> list:
    order = _order(layer)
    return [*order, *variables[len(order) :]]  # its own are the first


def _in_order(layer: keras.Layer) -> contextlib.AbstractContextManager:
    order = _order(layer)
    if not order:
        return contextlib.nullcontext()
    return _keras.listed(layer, order[: len(first_state(layer).learnable)])
