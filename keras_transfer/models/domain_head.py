"""The domain head, which distinguishes source and target, and its loss."""

from __future__ import annotations

import keras
from keras import ops

from keras_transfer.losses.domain_classification import DomainClassification
from keras_transfer.models.label_heads import last_activation
from keras_transfer.models.two_domain_model import TwoDomainModel

LOGS = ("domain_loss", "domain_accuracy")


def make_domain_head(
    model: TwoDomainModel, head: keras.Layer | None, width: int | None = None
) -> keras.Layer:
    """Return a built domain head for inputs of `width`, or for the model's features.

    Raises:
        TypeError: If `head` is not a layer.
        ValueError: If `head` does not give one logit per example.
    """
    if head is None:
        layers = [
            keras.layers.Dense(100, activation="relu"),
            keras.layers.Dense(1, dtype="float32"),
        ]
        head = keras.Sequential(layers, name="domain_head")
    if not isinstance(head, keras.Layer):
        raise TypeError(
            f"domain_head is a {type(head).__name__}, not a layer. Pass a Keras layer "
            "or model with one logit as output, or None."
        )
    width = model.width if width is None else width
    shape = tuple(head(keras.Input((width,))).shape)
    if shape != (None, 1):
        raise ValueError(
            f"The domain head '{head.name}' gives outputs of shape {shape}, but it "
            "must give one logit per example. End it with keras.layers.Dense(1)."
        )
    activation = last_activation(head)
    if activation not in (None, keras.activations.linear):
        raise ValueError(
            f"The domain head '{head.name}' ends in the activation "
            f"{activation.__name__}, but the loss needs logits. Remove the activation "
            "from its last layer."
        )
    return head


def domain_penalty(
    model: TwoDomainModel, source: object, target: object, *weights: object
) -> dict:
    """Return the loss of the logits of both domains, and record their accuracy.

    Each domain counts for half of the loss and of the accuracy. `weights` are the
    example weights of the source and of the target. Only the loss uses them.
    """
    right = [ops.mean(ops.cast(x, "float32")) for x in (source < 0, target >= 0)]
    model.record("domain_accuracy", sum(right) / 2, source)
    logits = (source, target)
    pairs = zip(logits, weights, strict=True) if weights else logits
    return {"domain_loss": (DomainClassification()(*pairs), 1.0)}
