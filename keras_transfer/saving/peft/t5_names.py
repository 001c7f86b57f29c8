"""Hugging Face's names of the weights of T5, for which keras-hub has no converter."""

from __future__ import annotations

import keras
import numpy as np


def convert_weights(backbone: keras.Model, loader: object, config: object) -> None:
    """Name the tensor of each weight of a T5Backbone, as keras-hub's converters do.

    Args:
        backbone: A keras_hub.models.T5Backbone.
        loader: Object with keras-hub's `port_weight`.
        config: Not used.
    """
    loader.port_weight(backbone.token_embedding.embeddings, "shared.weight")
    if not backbone.tie_embedding_weights:
        reverse = backbone.token_embedding.reverse_embeddings
        loader.port_weight(reverse, "lm_head.weight", _transposed)
    for stack in ("encoder", "decoder"):
        for i, block in enumerate(getattr(backbone, f"{stack}_transformer_layers")):
            _port_block(loader, block, f"{stack}.block.{i}.layer")
        norm = getattr(backbone, f"{stack}_layer_norm")
        loader.port_weight(norm.weight, f"{stack}.final_layer_norm.weight")


def _port_block(loader: object, block: keras.Layer, name: str) -> None:
    _port_attention(loader, block.self_attention, f"{name}.0.SelfAttention")
    norms = [block.self_attention_layer_norm]
    if block.is_decoder:
        _port_attention(loader, block.cross_attention, f"{name}.1.EncDecAttention")
        norms.append(block.cross_attention_layer_norm)
    last = f"{name}.{len(norms)}.DenseReluDense"
    if block.use_gated_activation:
        _port_dense(loader, block.input_projector, f"{last}.wi_0")
        _port_dense(loader, block.gate_projector, f"{last}.wi_1")
    else:
        _port_dense(loader, block.input_projector, f"{last}.wi")
    _port_dense(loader, block.output_projector, f"{last}.wo")
    for i, norm in enumerate([*norms, block.layer_norm]):
        loader.port_weight(norm.weight, f"{name}.{i}.layer_norm.weight")


def _port_attention(loader: object, attention: keras.Layer, name: str) -> None:
    for kind in ("query", "key", "value", "output"):
        _port_dense(
            loader, getattr(attention, f"{kind}_projector"), f"{name}.{kind[0]}"
        )
    if attention.use_relative_attention_bias:
        bias = attention.relative_attention_bias
        loader.port_weight(bias, f"{name}.relative_attention_bias.weight")


def _port_dense(loader: object, layer: keras.Layer, name: str) -> None:
    loader.port_weight(layer.kernel, f"{name}.weight", _transposed)


def _transposed(tensor: np.ndarray, shape: list[int]) -> np.ndarray:
    return np.transpose(tensor)
