"""Weights that adapters freeze: no flag unfreezes them, and they keep their order."""

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
    """Freeze the own weights of `layer`, except `learning`.

    Returns:
        Whether the layer has to be upgraded. There are two reasons. A
        BatchNormalization updates its averages unless its own trainable flag is False,
        and an upgraded layer keeps this flag False. And a layer of which only some
        weights train has to keep its weights in order.
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
    """Freeze `model`, except its parts, `spared` layers, and `learning` weights.

    `spared` contains ids of layers.

    Returns:
        The layers that have to be upgraded, see `freeze`.
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
    """Train `variables` and the parts, and freeze all layers that cannot train.

    Layers with ids in `spared` keep their flags.
    """
    of_parts = [v for _, part in all_parts(model) for v in part.weights]
    train_only(model, [*variables, *of_parts])
    for layer in _keras.flat_layers(model):
        able = any(map(_keras.learnable, _keras.flat_layers(layer)))
        if layer.weights and not able and id(layer) not in spared:
            _keras.set_flag(layer, False)


def keep_frozen(model: keras.Layer) -> None:
    """Freeze layers again after a parent's trainable flag has unfrozen them.

    Otherwise a BatchNormalization would update its statistics. The flags of its
    variables cannot prevent that.
    """
    for layer in _keras.flat_layers(model):
        if first_state(layer) and not any(
            map(_keras.learnable, _keras.flat_layers(layer))
        ):
            _keras.set_flag(layer, False)


class Ordered:
    """Mixin before a layer class, for layers of which only some weights train.

    Keras lists trainable weights before others, and most layers save their weights by
    number. If only the gamma of a normalization is frozen, Keras lists beta first. Then
    a file of the base model, or `set_weights`, would swap both. This mixin keeps the
    order from before freezing.
    """

    @property
    def weights(self) -> list[keras.Variable]:
        """All weights, with the layer's own weights in their first order."""
        return _sorted(self, super().weights)

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables, with the layer's own weights in their first order."""
        return _sorted(self, super().variables)

    def save_own_variables(self, store: dict) -> None:
        """Store the layer's own weights in their first order."""
        with _in_order(self):
            super().save_own_variables(store)

    def load_own_variables(self, store: dict) -> None:
        """Load the layer's own weights in their first order."""
        with _in_order(self):
            super().load_own_variables(store)


def _order(layer: keras.Layer) -> list[keras.Variable]:
    """Return the own weights in their first order, or [] if they already have it."""
    first, learning = first_state(layer), _keras.learnable(layer)
    if first is None or not learning or len(learning) == len(first.learnable):
        return []
    able = {id(variable) for variable in first.learnable}
    rest = [v for v in _keras.own_weights(layer) if id(v) not in able]
    return [*first.learnable, *rest]


def _sorted(layer: keras.Layer, variables: list) -> list:
    order = _order(layer)
    return [*order, *variables[len(order) :]]  # own weights come first


def _in_order(layer: keras.Layer) -> contextlib.AbstractContextManager:
    order = _order(layer)
    if not order:
        return contextlib.nullcontext()
    return _keras.listed(layer, order[: len(first_state(layer).learnable)])
