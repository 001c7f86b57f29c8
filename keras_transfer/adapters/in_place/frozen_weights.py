"""Weights held fixed: frozen so that no trainable flag of a layer or model thaws."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterable

import keras

from keras_transfer import _keras


@dataclasses.dataclass(frozen=True)
class Before:
    """What a layer was before: its flag, and what followed it with which flag."""

    trainable: bool
    variables: tuple[keras.Variable, ...]
    flags: tuple[bool, ...]


# Beside the layers, not in them: most are stock layers that get no attribute of ours.
_before: weakref.WeakKeyDictionary[keras.Layer, Before] = weakref.WeakKeyDictionary()


def hold(layer: keras.Layer, learning: Iterable[keras.Variable] = ()) -> None:
    """Hold the own weights of `layer`, but for those of `learning`, and freeze it."""
    if layer not in _before:
        own = tuple(_keras.learnable(layer))
        flags = tuple(each.trainable for each in own)
        _before[layer] = Before(layer.trainable, own, flags)
    free = {id(each) for each in learning}
    _keras.release(layer, [v for v in _before[layer].variables if id(v) in free])


def release(layer: keras.Layer) -> None:
    """Give `layer` the weights and flags back that it had before it was held."""
    before = _before.pop(layer, None)
    if before is not None:
        _keras.release(layer, before.variables)
        for variable, flag in zip(before.variables, before.flags, strict=True):
            variable.trainable = flag
        _keras.set_flag(layer, before.trainable)


def before(layer: keras.Layer) -> Before | None:
    """Return what `layer` was before it was held, or None if it is not."""
    return _before.get(layer)


def set_before(layer: keras.Layer, value: Before | None) -> None:
    """Set what `before` returns, after a reload or a failure."""
    if value is None:
        _before.pop(layer, None)
    else:
        _before[layer] = value


def rest(model: keras.Layer) -> None:
    """Freeze again what is held, where a flag from above has reached it.

    A BatchNormalization would else move its statistics, which no flag of a variable
    can hinder.
    """
    for layer in _keras.flat_layers(model):
        if layer in _before and not any(
            map(_keras.learnable, _keras.flat_layers(layer))
        ):
            _keras.set_flag(layer, False)
