"""int8 and int4 by Keras's own quantizers, below the head of a model."""

from __future__ import annotations

import keras

from keras_transfer import _keras
from keras_transfer._arguments import whole_number
from keras_transfer.quantization.hosts import check_finite
from keras_transfer.quantization.hosts import check_model
from keras_transfer.quantization.hosts import check_untrained
from keras_transfer.quantization.hosts import hosts_of
from keras_transfer.quantization.hosts import summary

INTEGERS = ("int8", "int4")
BLOCK_SIZE = 64  # as in NF4


def quantize_integers(model: keras.Layer, mode: str, block_size: int | None) -> str:
    """Quantize the layers of a model by Keras, and return a line about the model.

    Args:
        model: As in `quantize`.
        mode: `"int8"` or `"int4"`.
        block_size: Number of inputs with one constant in int4. None for 64.

    Raises:
        TypeError: As in `quantize`.
        ValueError: As in `quantize`.
    """
    config = None
    if mode == "int8" and block_size is not None:
        raise ValueError(
            f"block_size={block_size} has no effect with mode='int8', which has one "
            "constant for each output. Leave it out."
        )
    if mode == "int4":
        size = BLOCK_SIZE if block_size is None else block_size
        size = whole_number("block_size", size, least=2)
        config = keras.quantizers.Int4QuantizationConfig(block_size=size)
    check_model(model)
    hosts, rest = hosts_of(model)
    check_untrained(model, [layer for _, layer in hosts])
    for path, layer in hosts:
        check_finite(path, layer)
    say = summary(model, mode, hosts, rest)
    for _, layer in hosts:
        layer.quantize(mode, config=config)
    for layer in _keras.flat_layers(model):
        _keras.forget_traces(layer)
    return say()
