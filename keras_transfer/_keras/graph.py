"""Keras's private side of functional graphs: where a symbolic tensor comes from."""

from typing import Any

import keras


def source(tensor: keras.KerasTensor) -> tuple[Any, int, list[keras.KerasTensor]]:
    """Return the operation that made a symbolic tensor, its call, and its inputs."""
    operation, call, _ = tensor._keras_history
    return operation, call, list(operation._inbound_nodes[call].input_tensors)


def has_mask(tensor: keras.KerasTensor) -> bool:
    """Return whether a symbolic tensor carries a Keras mask."""
    return getattr(tensor, "_keras_mask", None) is not None


def sees_mask(layer: keras.Layer) -> bool:
    """Return whether a symbolic call of `layer` was given a masked tensor."""
    nodes = layer._inbound_nodes
    return any(has_mask(tensor) for node in nodes for tensor in node.input_tensors)
