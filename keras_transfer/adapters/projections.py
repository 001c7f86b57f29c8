"""The projections of transformer blocks, told by their names in keras-hub."""

from __future__ import annotations

import re
from collections.abc import Iterable

import keras

from keras_transfer.adapters.targets import candidates
from keras_transfer.adapters.targets import CROSS
from keras_transfer.adapters.targets import head_layers
from keras_transfer.adapters.targets import Target

KEYS_AND_VALUES = re.compile(
    r"(?:^|/)(?:key|value|[kv]_proj|[kv]_dense_layer"
    r"|(?:key|value)_(?:dense|proj|projector)|query_key_value|(?:attention_)?qkv)$"
)
ATTENTION_OUTPUTS = re.compile(
    r"(?:^|/)(?:attention_(?:output|projection)|o_proj|out_proj|o_dense_layer"
    r"|[^/]*atten[^/]*/(?:projection|output_(?:dense|proj|projector)))$"
)
# `fc2` and `dense_2` are names of heads, too, and Keras's own for a third Dense.
FEED_FORWARD_OUTPUTS = re.compile(
    r"(?:^|/)(?:feedforward_output_dense|mlp_(?:output_dense|dense_2)|ffw_linear"
    r"|dense_4h_to_h|down_proj|output_projector"
    r"|[^/]*(?:mlp|ffn|layer|block)[^/]*/(?:fc2|dense_2))$"
)


def projections(
    model: keras.Layer,
    classes: Iterable[type],
    patterns: Iterable[re.Pattern],
    *,
    cross: bool = False,
) -> list[Target]:
    """Return the layers of `classes` below the head that one of `patterns` matches.

    Those of cross-attention only with `cross`.
    """
    patterns = tuple(patterns)
    head = {id(layer) for layer in head_layers(model)}
    return [
        each
        for each in candidates(model, classes)
        if id(each.layer) not in head
        and any(is_one(pattern, each.path) for pattern in patterns)
        and (cross or not CROSS.search(each.path))
    ]


def is_one(pattern: re.Pattern, path: str) -> bool:
    """Return whether `pattern` is that of the layer at `path`."""
    if pattern is FEED_FORWARD_OUTPUTS and ATTENTION_OUTPUTS.search(path):
        return False  # T5 has an output_projector in each
    return bool(pattern.search(path))
