"""The encoder of Whisper in NumPy, from its weights by the paths of keras-hub."""

import numpy as np
from scipy.special import erf


def encode(values, features):
    """Return the outputs `(batch, frames / 2, width)` for `(batch, frames, mels)`.

    `values` are the arrays of the weights by path. The number of heads is the second
    axis of the query kernel.
    """
    x = features.astype("float64")
    for number, stride in ((1, 1), (2, 2)):
        name = f"encoder_token_embedding_conv_layer_{number}"
        x = gelu(
            convolved(x, values[f"{name}/kernel"], stride) + values[f"{name}/bias"]
        )
    x = x + values["encoder_position_embedding/embeddings"][: x.shape[1]]
    number = 0
    while f"transformer_encoder_layer_{number}/feedforward_layer_norm/gamma" in values:
        name = f"transformer_encoder_layer_{number}"
        x = x + attention(
            values,
            f"{name}/self_attention_layer",
            norm(values, f"{name}/self_attention_layer_norm", x),
        )
        hidden = norm(values, f"{name}/feedforward_layer_norm", x)
        for layer, function in (("intermediate", gelu), ("output", lambda each: each)):
            dense = f"{name}/feedforward_{layer}_dense"
            kernel, bias = values[f"{dense}/kernel"], values[f"{dense}/bias"]
            hidden = function(hidden @ kernel + bias)
        x = x + hidden
        number += 1
    return norm(values, "encoder_layer_norm", x)


def convolved(x, kernel, stride):
    """Return a convolution of size 3 with a zero at each end."""
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    starts = range(0, x.shape[1], stride)
    windows = np.stack([padded[:, each : each + 3] for each in starts], axis=1)
    return np.einsum("btkc,kcd->btd", windows, kernel)


def attention(values, name, x):
    """Return the attention of each position to all positions."""
    query = np.einsum("btc,chd->bhtd", x, values[f"{name}/query/kernel"])
    query = query + values[f"{name}/query/bias"][:, None]
    key = np.einsum("btc,chd->bhtd", x, values[f"{name}/key/kernel"])
    value = np.einsum("btc,chd->bhtd", x, values[f"{name}/value/kernel"])
    value = value + values[f"{name}/value/bias"][:, None]
    scores = query @ key.swapaxes(2, 3) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights = weights / weights.sum(-1, keepdims=True)
    mixed = np.einsum(
        "bhtd,hdc->btc", weights @ value, values[f"{name}/attention_output/kernel"]
    )
    return mixed + values[f"{name}/attention_output/bias"]


def norm(values, name, x):
    """Return a layer normalization."""
    centered = x - x.mean(-1, keepdims=True)
    scaled = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * values[f"{name}/gamma"] + values[f"{name}/beta"]


def gelu(x):
    """Return the exact GELU."""
    return x * (1 + erf(x / np.sqrt(2))) / 2
