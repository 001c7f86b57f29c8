"""The label head of a model of two domains: its kind of outputs, and a second head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.losses.compiled_loss import compiled_loss
from keras_transfer.losses.compiled_loss import says_logits


def last_activation(head: keras.Layer) -> Callable | None:
    """Return the activation of the last layer of `head`, or None without one."""
    while isinstance(head, keras.Model) and head.layers:
        head = head.layers[-1]
    return getattr(head, "activation", None)


def check_activation(model: keras.Model) -> None:
    """Check that the label head gives the kind of outputs that the loss expects.

    Raises:
        ValueError: If the head gives logits, but the loss expects probabilities.
    """
    linear = last_activation(model.label_head) is keras.activations.linear
    if linear and compiled_loss(model).from_logits is False:
        raise ValueError(
            f"The label head '{model.label_head.name}' has no activation, so it gives "
            "logits, but the loss expects probabilities. Compile with a loss with "
            "from_logits=True."
        )


def gives_logits(model: keras.Model) -> bool:
    """Return whether the outputs are logits, from the loss or the last activation.

    Raises:
        ValueError: If neither the loss nor the last layer shows it.
    """
    activation = last_activation(model.label_head)
    if compiled_loss(model).from_logits is None and activation is not None:
        return activation is keras.activations.linear
    return says_logits(model)


def correct_rows(labels: Any, outputs: Any, from_logits: bool) -> object:
    """Return 1 for each example with a correct prediction, and 0 for the others."""
    classes = outputs.shape[-1]
    if classes == 1:
        chosen = ops.cast(outputs[:, 0] > (0.0 if from_logits else 0.5), "int32")
        labels = ops.reshape(labels, (-1,))
    else:
        chosen = ops.cast(ops.argmax(outputs, axis=-1), "int32")
        one_hot = len(labels.shape) == 2 and labels.shape[-1] == classes
        labels = ops.argmax(labels, -1) if one_hot else ops.reshape(labels, (-1,))
    return ops.cast(chosen == ops.cast(labels, "int32"), "float32")


def make_second_head(model: keras.Model, head: keras.Layer | None) -> keras.Layer:
    """Return a built second head for `model`, by default a copy with new weights.

    Raises:
        TypeError: If `head` is not a layer.
        ValueError: If the outputs of the two heads do not match, or if both heads have
            the same weights.
    """
    first = model.label_head
    if head is None:
        config = first.get_config()
        config["name"] = f"{first.name}_second"
        head = type(first).from_config(config)
    if not isinstance(head, keras.Layer):
        raise TypeError(
            f"The second head is a {type(head).__name__}, not a layer. Pass a Keras "
            "layer or model with the same outputs as the label head, or None."
        )
    shape = tuple(head(keras.Input((model.width,))).shape)
    if shape != (None, model.classes):
        raise ValueError(
            f"The second head '{head.name}' gives outputs of shape {shape}, but the "
            f"label head gives (None, {model.classes}). Both must predict the same "
            "classes. Change the units of the second head."
        )
    activations = [last_activation(first), last_activation(head)]
    if None not in activations and activations[0] is not activations[1]:
        names = " and ".join(activation.__name__ for activation in activations)
        raise ValueError(
            f"The heads '{first.name}' and '{head.name}' end in {names}, but the "
            "method compares their outputs. End both heads with the same activation."
        )
    if head is first or _same(
        _keras.values(first.weights), _keras.values(head.weights)
    ):
        raise ValueError(
            f"The heads '{first.name}' and '{head.name}' have the same weights, so "
            "they would always be equal. Initializers with a fixed seed cause this. "
            "Pass a second head with other initializers."
        )
    return head


def _same(first: list, second: list) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a, b) for a, b in zip(first, second, strict=True)
    )
