"""What is given by domain: recognized, checked, joined into one batch and split."""

from __future__ import annotations

from typing import Any
from typing import NamedTuple

import keras
from keras import ops

from keras_transfer import _keras

STREAMS = ("source", "target")


class Domain(NamedTuple):
    """One domain in a step: what went in, its features, the label head's outputs."""

    inputs: Any
    features: Any
    outputs: Any

    @property
    def size(self) -> object:
        """The number of examples."""
        return ops.shape(self.features)[0]


def is_two_streams(inputs: Any) -> bool:
    """Return whether something is given by domain."""
    return isinstance(inputs, dict) and set(inputs) == set(STREAMS)


def join(source: Any, target: Any) -> Any:
    """Return the rows of the source and then those of the target."""
    return keras.tree.map_structure(lambda *x: ops.concatenate(x), source, target)


def split(rows: Any, count: object) -> dict:
    """Return by domain what `join` put together, with `count` rows of the source."""
    return {
        "source": keras.tree.map_structure(lambda x: x[:count], rows),
        "target": keras.tree.map_structure(lambda x: x[count:], rows),
    }


def read_domains(x: dict, y_pred: dict) -> tuple[Domain, Domain]:
    """Return the source and the target from what went in and what came out."""
    source, target = (
        Domain(x[name], y_pred["features"][name], y_pred[name]) for name in STREAMS
    )
    return source, target


def split_labels(y: Any) -> tuple:
    """Return the labels of the source, and those of the target or None."""
    return (y["source"], y["target"]) if is_two_streams(y) else (y, None)


def check_streams(model: keras.Model, inputs: dict, training: bool | None) -> object:
    """Return the number of examples of the source.

    Raises:
        ValueError: If the domains differ in form, or one example meets BatchNorm.
    """
    keras.tree.assert_same_structure(inputs["source"], inputs["target"])
    leaves = [keras.tree.flatten(inputs[name]) for name in STREAMS]
    for source, target in zip(*leaves, strict=True):
        shapes = tuple(source.shape[1:]), tuple(target.shape[1:])
        if shapes[0] != shapes[1] or source.dtype != target.dtype:
            raise ValueError(
                f"The source has examples of shape {shapes[0]} and dtype "
                f"{source.dtype}, the target of {shapes[1]} and {target.dtype}. "
                "One network reads both: bring them to the same form."
            )
    first = leaves[0][0]
    if training and first.shape[0] == 1 and _normalizes(model):
        raise ValueError(
            "A batch has one example of the source, but the network has a "
            "BatchNormalization that trains: its statistics need several. Raise "
            "the batch size, or freeze the layer."
        )
    return ops.shape(first)[0]


def _normalizes(model: keras.Model) -> bool:
    return any(
        isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for layer in _keras.flat_layers(model)
    )
