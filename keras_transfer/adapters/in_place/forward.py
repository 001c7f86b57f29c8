"""Hooked: the forward pass of a layer with parts, for all techniques."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.adapter_part import parts_of

# The layer that, in this thread, computes without its activation and soft cap.
_bare = threading.local()


class Hooked:
    """Mixin before a Keras layer class: run the layer's `call` and its parts.

    The layer's own `call` runs without the activation (and the soft cap of logits),
    because both have to come after the additions of the parts. If a part replaces the
    layer, `call` runs unchanged with the weights of the part.
    """

    # The class of the layer after its parts are merged or removed.
    plain_class: type | None = None

    def call(self, inputs: object, *args: object, **kwargs: object) -> object:
        """Return the layer's outputs, changed by its parts."""
        return _run(self, super().call, inputs, *args, **kwargs)

    def quantized_call(self, inputs: object, *args: object, **kwargs: object) -> object:
        """Do the same as `call` for a quantized layer."""
        return _run(self, super().quantized_call, inputs, *args, **kwargs)

    @property
    def activation(self) -> object:
        """The layer's activation."""
        return _late(self, "activation")

    @activation.setter
    def activation(self, value: object) -> None:
        self.__dict__["activation"] = value

    @property
    def logit_soft_cap(self) -> object:
        """The soft cap of an embedding's logits."""
        return _late(self, "logit_soft_cap")

    @logit_soft_cap.setter
    def logit_soft_cap(self, value: object) -> None:
        self.__dict__["logit_soft_cap"] = value


def _late(layer: keras.Layer, name: str) -> object:
    if name not in layer.__dict__:
        raise AttributeError(f"{type(layer).__name__} has no {name}")
    return None if getattr(_bare, "layer", None) is layer else layer.__dict__[name]


def _run(
    layer: keras.Layer, compute: object, inputs: object, *args: object, **kwargs: object
) -> object:
    parts = parts_of(layer)
    added = [part for part in parts if not part.replaces]
    plain = functools.partial(compute, inputs, *args, **kwargs)
    result = plain
    if added:
        result = functools.partial(
            _with_parts, layer, added, compute, inputs, *args, **kwargs
        )
    own = [part for part in parts if part.replaces]
    # For example, outputs of different widths cannot be branches of one graph.
    now = any(part.asked_early for part in own)
    now = now or bool(own) and _keras.is_training(kwargs.get("training"))
    if own and now:
        result = functools.partial(_frozen, layer, result)
    for part in own:
        result = functools.partial(part.instead, layer, result, plain, now=now)
    return result()


def _frozen(layer: keras.Layer, compute: Callable[[], object]) -> object:
    """Return `compute()` with the layer frozen, even if a part trains in its place.

    Otherwise the layer has the flag of the part, and a BatchNormalization reads this
    flag.
    """
    with _keras.exchanged(layer, (), [(layer, {"_trainable": False})]):
        return compute()


def _with_parts(
    layer: keras.Layer,
    parts: list[Part],
    compute: object,
    inputs: object,
    *args: object,
    **kwargs: object,
) -> object:
    """Return the layer's outputs, changed by the hooks of `parts`."""
    for part in parts:
        inputs = part.on_inputs(layer, inputs)
    outer = getattr(_bare, "layer", None)
    _bare.layer = layer
    try:
        bare = compute(inputs, *args, **kwargs)
    finally:
        _bare.layer = outer
    outputs = bare
    for part in parts:
        outputs = part.on_outputs(layer, inputs, outputs, **kwargs)
    if getattr(layer, "activation", None) is not None:
        outputs = layer.activation(outputs)
    cap = getattr(layer, "logit_soft_cap", None)
    if cap is not None and kwargs.get("reverse"):
        outputs = ops.tanh(outputs / cap) * cap
    for part in parts:
        outputs = part.on_result(layer, outputs)
    outputs = _keras.copy_mask(bare, outputs)
    for part in parts:
        outputs = part.on_return(layer, inputs, outputs, **kwargs)
    return outputs
