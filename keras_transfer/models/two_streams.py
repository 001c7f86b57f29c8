"""What is given by domain: told from plain input, and checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer.losses.compiled_loss import compiled_loss
from keras_transfer.losses.compiled_loss import says_logits

STREAMS = {"source", "target"}


def is_two_streams(inputs: Any) -> bool:
    """Return whether something is given by domain."""
    return isinstance(inputs, dict) and set(inputs) == STREAMS


def split_labels(y: Any) -> tuple:
    """Return the labels of the source, and those of the target or None."""
    return (y["source"], y["target"]) if is_two_streams(y) else (y, None)


def last_activation(head: keras.Layer) -> Callable | None:
    """Return the activation that `head` ends in; None if its last layer has none."""
    while isinstance(head, keras.Model) and head.layers:
        head = head.layers[-1]
    return getattr(head, "activation", None)


def check_activation(model: keras.Model, label_head: keras.Layer) -> None:
    """Check that what the loss takes the outputs for is what the head gives.

    Raises:
        ValueError: If the head gives logits, and the loss reads probabilities.
    """
    linear = last_activation(label_head) is keras.activations.linear
    if linear and compiled_loss(model).from_logits is False:
        raise ValueError(
            f"The label head '{label_head.name}' ends without an activation, "
            "in logits, but the loss takes its outputs for probabilities. Compile "
            "with a loss of from_logits=True."
        )


def gives_logits(model: keras.Model, label_head: keras.Layer) -> bool:
    """Return whether the outputs are logits: as the loss says, else as the head ends.

    Raises:
        ValueError: If neither says.
    """
    activation = last_activation(label_head)
    if compiled_loss(model).from_logits is None and activation is not None:
        return activation is keras.activations.linear
    return says_logits(model)


def right(labels: Any, outputs: Any, from_logits: bool) -> object:
    """Return 1 where outputs of a label head agree with the labels, else 0."""
    classes = outputs.shape[-1]
    if classes == 1:
        found = ops.cast(outputs[:, 0] > (0.0 if from_logits else 0.5), "int32")
        labels = ops.reshape(labels, (-1,))
    else:
        found = ops.argmax(outputs, axis=-1)
        one_hot = len(labels.shape) == 2 and labels.shape[-1] == classes
        labels = ops.argmax(labels, -1) if one_hot else ops.reshape(labels, (-1,))
    return ops.cast(ops.cast(found, "int32") == ops.cast(labels, "int32"), "float32")


def check_streams(model: keras.Model, inputs: dict, training: bool | None) -> object:
    """Return the number of examples of the source.

    Raises:
        ValueError: If the domains differ in form, or one example meets BatchNorm.
    """
    keras.tree.assert_same_structure(inputs["source"], inputs["target"])
    pairs = [keras.tree.flatten(inputs[each]) for each in ("source", "target")]
    for source, target in zip(*pairs, strict=True):
        shapes = tuple(source.shape[1:]), tuple(target.shape[1:])
        if shapes[0] != shapes[1] or source.dtype != target.dtype:
            raise ValueError(
                f"The source has examples of shape {shapes[0]} and dtype "
                f"{source.dtype}, the target of {shapes[1]} and {target.dtype}. "
                "One network reads both: bring them to the same form."
            )
    if training and pairs[0][0].shape[0] == 1 and _normalises(model):
        raise ValueError(
            "A batch has one example of the source, but the network has a "
            "BatchNormalization that trains: its statistics need several. Raise "
            "the batch size, or freeze the layer."
        )
    return ops.shape(pairs[0][0])[0]


def _normalises(model: keras.Model) -> bool:
    return any(
        isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for layer in _keras.flat_layers(model)
    )
