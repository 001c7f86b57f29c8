"""PrefixedAttention: an attention layer that also attends to trained keys."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.adapter_part import parts_of
from keras_transfer.adapters.attention_layers import MASK


class PrefixedAttention:
    """Mixin before an attention class: keys and values of parts come before the text's.

    The layer's own projections, rotations and cache are as before, so lengths,
    positions and generation with a cache do not change. Each query may attend to the
    whole prefix.

    In training, the part in use is read when the graph is traced. In inference the
    graph reads the gates each time it runs, so graphs stay valid.
    """

    # The class of the layer after its parts are removed.
    plain_class: type | None = None

    def _compute_attention(self, *args: object, **kwargs: object) -> object:
        """Return the attention over the prefix in use and the layer's own keys."""
        base = super()._compute_attention
        call = inspect.signature(base).bind(*args, **kwargs)
        scores = bool(call.arguments.get("return_attention_scores"))
        now = scores or _keras.is_training(call.arguments.get("training"))
        compute = functools.partial(_attention, self, base, call, None, scores)
        several = False
        for part in parts_of(self):
            own = functools.partial(_attention, self, base, call, part, scores)
            if now:
                compute = own if _keras.value_now(part.gate) else compute
            else:
                compute = functools.partial(_chosen, self, part, own, compute)
            several = True
        outputs = compute()
        if several and not scores and isinstance(self, _pairs()):
            return outputs, None
        return outputs


def _pairs() -> tuple[type, ...]:
    """Return the classes whose method returns outputs and scores."""
    return keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention


def _chosen(
    layer: keras.Layer,
    part: Part,
    own: Callable[[], object],
    otherwise: Callable[[], object],
) -> object:
    gate = ops.cast(part.gate, "bool")
    return _keras.either(layer, gate, own, otherwise)[0]


def _attention(
    layer: keras.Layer,
    base: Callable,
    call: inspect.BoundArguments,
    part: Part | None,
    scores: bool,
) -> object:
    """Return the layer's attention, without scores unless they are wanted."""
    arguments = dict(call.arguments)
    rest = arguments.pop("kwargs", {})
    settings = {}
    if part is not None:
        _, keys, values = list(arguments)[:3]
        before = part.pair(ops.shape(arguments[keys])[0], arguments[keys].dtype)
        for name, prefix in zip((keys, values), before, strict=True):
            arguments[name] = _joined(prefix, arguments[name])
        if (mask := arguments.get(MASK)) is not None:
            mask, settings = _in_window(layer, mask, arguments)
            ones = ops.repeat(ops.ones_like(mask[..., :1]), part.tokens, axis=-1)
            arguments[MASK] = ops.concatenate([ones, mask], axis=-1)
    with _keras.exchanged(layer, (), [(layer, settings)] if settings else []):
        outputs = base(**arguments, **rest)
    if not isinstance(outputs, tuple):
        return outputs
    if not scores:
        return outputs[0]
    outputs, weights = outputs
    # The scores of the text's own tokens, which no longer sum to 1.
    return outputs, weights if part is None else weights[..., part.tokens :]


def _in_window(
    layer: keras.Layer, mask: object, arguments: dict
) -> tuple[object, dict[str, object]]:
    """Return a mask of the window, and the settings of a layer without a window.

    The window counts the positions of the text's keys, so it has to come before the
    prefix.
    """
    window = getattr(layer, "_mask_sliding_window", None)
    if window is None or not getattr(layer, "sliding_window_size", None):
        return mask, {}
    if not getattr(layer, "use_sliding_window_attention", True):
        return mask, {}
    index = arguments.get("cache_update_index")
    mask = window(mask, cache_update_index=0 if index is None else index)
    by_flag = hasattr(layer, "use_sliding_window_attention")
    name = "use_sliding_window_attention" if by_flag else "sliding_window_size"
    return mask, {name: False if by_flag else None}


def _joined(prefix: object, own: object) -> object:
    """Return the prefix before the layer's own keys, which can repeat their heads."""
    times = own.shape[2] // prefix.shape[2]
    if times > 1:
        prefix = ops.repeat(prefix, times, axis=2)
    return ops.concatenate([prefix, own], axis=1)
