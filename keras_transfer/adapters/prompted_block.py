"""PromptedBlock: a transformer block whose inputs begin with a prompt."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from keras import ops

from keras_transfer.adapters.adapter_part import parts_of

# The arguments of the blocks of keras-hub, by all their names.
PADDING = ("padding_mask", "decoder_padding_mask")
ATTENTION = ("attention_mask", "decoder_attention_mask")
CACHE = ("cache", "self_attention_cache", "attention_cache")
INDEX = tuple(f"{name}_update_index" for name in CACHE)


class PromptedBlock:
    """Mixin before a block of keras-hub: its inputs begin with the prompt in use.

    The masks of the text get entries for the prompt, which each token may see as far as
    the block is not causal. The last block removes the prompt from its outputs.

    With a cache, the inputs are the prompt and the next part of the text. The cache has
    the size of the text. The keys and values of the prompt are computed again in each
    step. In a causal block they do not depend on the text.
    """

    # The class of the layer after its parts are removed.
    plain_class: type | None = None

    def call(self, *args: object, **kwargs: object) -> object:
        """Return the outputs of the block."""
        compute = super().call
        part = next((x for x in parts_of(self) if x.in_use), None)
        if part is None:
            return compute(*args, **kwargs)
        bound = inspect.signature(compute).bind(*args, **kwargs)
        call, names = dict(bound.arguments), list(bound.signature.parameters)
        call |= call.pop("kwargs", {})
        cache = _named(CACHE, names)
        if cache and call.get(cache) is not None:
            outputs = _with_cache(compute, call, names, part.tokens)
        else:
            outputs = compute(**_longer(call, names, part.tokens))
        if not part.last:
            return outputs
        several = isinstance(outputs, tuple)
        first = (outputs[0] if several else outputs)[:, part.tokens :]
        return (first, *outputs[1:]) if several else first


def _named(known: tuple[str, ...], names: list[str]) -> str | None:
    return next((name for name in known if name in names), None)


def _longer(call: dict, names: list[str], tokens: int) -> dict:
    """Return the arguments with masks that have entries for the prompt."""
    call = dict(call)
    padding, attention = _named(PADDING, names), _named(ATTENTION, names)
    if padding and call.get(padding) is not None:
        call[padding] = _ones_before(call[padding], tokens)
    if attention and call.get(attention) is not None:
        mask = _ones_before(call[attention], tokens)
        rows = ops.repeat(ops.ones_like(mask[:, :1]), tokens, axis=1)
        call[attention] = ops.concatenate([rows, mask], axis=1)
    return call


def _ones_before(mask: object, tokens: int) -> object:
    ones = ops.repeat(ops.ones_like(mask[..., :1]), tokens, axis=-1)
    return ops.concatenate([ones, mask], axis=-1)


def _with_cache(
    compute: Callable, call: dict, names: list[str], tokens: int
) -> tuple[object, object]:
    """Return the outputs of the prompt and the text, and the cache of the text."""
    inputs, cache, index = names[0], _named(CACHE, names), _named(INDEX, names)
    padding, attention = _named(PADDING, names), _named(ATTENTION, names)
    if any(name and call.get(name) is not None for name in (padding, attention)):
        raise ValueError(
            "A block with a prompt was called with a cache and a mask, which no model "
            "of keras-hub does. Leave the mask out."
        )
    own, whole = call[cache], call[inputs]
    room = ops.zeros_like(ops.repeat(own[:, :, :1], tokens, axis=2))
    start = call.get(index)
    start = 0 if start is None else start
    longer = ops.concatenate([room, own], axis=2)
    prompt, longer = compute(
        **call | {inputs: whole[:, :tokens], cache: longer, index: 0}
    )
    text, longer = compute(
        **call | {inputs: whole[:, tokens:], cache: longer, index: start + tokens}
    )
    outputs = ops.concatenate([prompt, text], axis=1)
    return outputs, longer[:, :, tokens:]
