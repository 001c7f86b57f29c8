"""Patterns for the projections of transformer blocks, by their names in keras-hub."""

import re

# The query and value projections of the keras-hub families. A fused projection
# contains both. Cross-attention is left out, as in the paper.
QUERY_AND_VALUE = re.compile(
    r"(?:^|/)(?:query|value|[qv]_(?:proj|dense_layer)|(?:query|value)_(?:dense|proj|projector)"
    r"|query_key_value|(?:attention_)?qkv)$"
)
CROSS = re.compile(r"cross|encoder_attention|enc_dec")
KEYS_AND_VALUES = re.compile(
    r"(?:^|/)(?:key|value|[kv]_proj|[kv]_dense_layer"
    r"|(?:key|value)_(?:dense|proj|projector)|query_key_value|(?:attention_)?qkv)$"
)
ATTENTION_OUTPUTS = re.compile(
    r"(?:^|/)(?:attention_(?:output|projection)|o_proj|out_proj|o_dense_layer"
    r"|[^/]*atten[^/]*/(?:projection|output_(?:dense|proj|projector)))$"
)
# `fc2` and `dense_2` are also names of heads, and `dense_2` is Keras's default name of
# a third Dense.
FEED_FORWARD_OUTPUTS = re.compile(
    r"(?:^|/)(?:feedforward_output_dense|mlp_(?:output_dense|dense_2)|ffw_linear"
    r"|dense_4h_to_h|down_proj|output_projector"
    r"|[^/]*(?:mlp|ffn|layer|block)[^/]*/(?:fc2|dense_2))$"
)


def is_one(pattern: re.Pattern, path: str) -> bool:
    """Return whether the layer at `path` is a projection of `pattern`."""
    if pattern is FEED_FORWARD_OUTPUTS and ATTENTION_OUTPUTS.search(path):
        return False  # T5 has an output_projector in attention and feed-forward
    return bool(pattern.search(path))
