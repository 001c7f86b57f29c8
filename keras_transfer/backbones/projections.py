"""The projections of transformer blocks, recognized by their names in keras-hub."""

import re

# The projections of queries and values by the names of keras-hub's families; a fused
# one holds both. Cross-attention is left out, as in the paper.
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
# `fc2` and `dense_2` are names of heads, too, and Keras's own for a third Dense.
FEED_FORWARD_OUTPUTS = re.compile(
    r"(?:^|/)(?:feedforward_output_dense|mlp_(?:output_dense|dense_2)|ffw_linear"
    r"|dense_4h_to_h|down_proj|output_projector"
    r"|[^/]*(?:mlp|ffn|layer|block)[^/]*/(?:fc2|dense_2))$"
)


def is_one(pattern: re.Pattern, path: str) -> bool:
    """Return whether `pattern` is that of the layer at `path`."""
    if pattern is FEED_FORWARD_OUTPUTS and ATTENTION_OUTPUTS.search(path):
        return False  # T5 has an output_projector in each
    return bool(pattern.search(path))
