"""Data of two domains: recognize it, check it, join it into one batch, split it."""

from __future__ import annotations

from typing import Any
from typing import NamedTuple

import keras
from keras import ops

from keras_transfer import _keras

STREAMS = ("source", "target")


class Domain(NamedTuple):
    """One domain in a step: its inputs, features and outputs of the label head."""

    inputs: Any
    features: Any
    outputs: Any

    @property
    def size(self) -> object:
        """The number of examples."""
        return ops.shape(self.features)[0]


def is_two_streams(inputs: Any) -> bool:
    """Return whether `inputs` is a dictionary of the two domains."""
    return isinstance(inputs, dict) and set(inputs) == set(STREAMS)


def join(source: Any, target: Any) -> Any:
    """Return the rows of the source, followed by the rows of the target."""
    return keras.tree.map_structure(lambda *x: ops.concatenate(x), source, target)


def split(rows: Any, count: object) -> dict:
    """Split the result of `join` by domain. The source has the first `count` rows."""
    return {
        "source": keras.tree.map_structure(lambda x: x[:count], rows),
        "target": keras.tree.map_structure(lambda x: x[count:], rows),
    }


def read_domains(x: dict, y_pred: dict) -> tuple[Domain, Domain]:
    """Return the source and the target from the inputs and the model's outputs."""
    source, target = (
        Domain(x[name], y_pred["features"][name], y_pred[name]) for name in STREAMS
    )
    return source, target


def split_labels(y: Any) -> tuple:
    """Return the labels of the source, and the labels of the target or None."""
    return (y["source"], y["target"]) if is_two_streams(y) else (y, None)


def check_streams(model: keras.Model, inputs: dict, training: bool | None) -> object:
    """Check a batch of two domains, and return the number of source examples.

    Raises:
        ValueError: If the domains differ in shape or dtype, or if a trainable BatchNorm
            gets only one example.
    """
    keras.tree.assert_same_structure(inputs["source"], inputs["target"])
    leaves = [keras.tree.flatten(inputs[name]) for name in STREAMS]
    for source, target in zip(*leaves, strict=True):
        shapes = tuple(source.shape[1:]), tuple(target.shape[1:])
        if shapes[0] != shapes[1] or source.dtype != target.dtype:
            raise ValueError(
                f"The source has examples of shape {shapes[0]} and dtype "
                f"{source.dtype}, but the target has shape {shapes[1]} and dtype "
                f"{target.dtype}. One network reads both domains, so convert them to "
                "the same shape and dtype."
            )
    first = leaves[0][0]
    if training and first.shape[0] == 1 and _normalizes(model):
        raise ValueError(
            "A batch has only one example of the source, but the network has a "
            "trainable BatchNormalization, whose statistics need several examples. "
            "Increase the batch size, or freeze the layer."
        )
    return ops.shape(first)[0]


def _normalizes(model: keras.Model) -> bool:
    return any(
        isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for layer in _keras.flat_layers(model)
    )
