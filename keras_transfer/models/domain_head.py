"""The domain head, which distinguishes source and target, and its loss."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
from keras import ops

from keras_transfer.layers.gradient_reversal import reverse_gradient
from keras_transfer.losses.domain_classification import DomainClassification
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.label_heads import last_activation
from keras_transfer.models.two_domain_model import TwoDomainModel
from keras_transfer.models.two_streams import Domain
from keras_transfer.models.two_streams import join
from keras_transfer.models.two_streams import split

LOGS = ("domain_loss", "domain_accuracy")
CHANCE = math.log(2)  # the domain loss of a head that cannot distinguish the domains


def make_domain_head(
    model: TwoDomainModel, head: keras.Layer | None, width: int | None = None
) -> keras.Layer:
    """Return a built domain head for inputs of `width`, or for the model's features.

    Raises:
        TypeError: If `head` is not a layer.
        ValueError: If `head` does not give one logit per example.
    """
    width = model.width if width is None else width
    if head is None:
        layers = [
            *normalization(width),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.Dense(1, dtype="float32"),
        ]
        head = keras.Sequential(layers, name="domain_head")
    if not isinstance(head, keras.Layer):
        raise TypeError(
            f"domain_head is a {type(head).__name__}, not a layer. Pass a Keras layer "
            "or model with one logit as output, or None."
        )
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


def normalization(width: int) -> list[keras.Layer]:
    """Return layers, without weights, that give each example a root mean square of 1.

    Without them, features can raise the loss of an adversary without limit by their
    length alone, which says nothing about the domains.
    """
    return [
        keras.layers.UnitNormalization(dtype="float32"),
        keras.layers.Rescaling(width**0.5, dtype="float32"),
    ]


def reversed_logits(
    model: DomainAdaptation,
    domains: tuple[Domain, Domain],
    run: Callable,
    training: bool,
) -> dict:
    """Return the logits of the domain head by domain, with a reversed gradient.

    Args:
        model: The model, whose strength is lowered as its domain head loses its lead.
        domains: The source and the target.
        run: Function of the features of both domains and of `training`, to logits.
        training: Whether the gradient is needed.
    """
    source, target = domains
    features, strength = join(source.features, target.features), model.strength_now()
    if training:
        fixed = split(run(ops.stop_gradient(features), False), source.size)
        loss = DomainClassification().value(fixed["source"], fixed["target"])
        strength = model.strength_by_lead(loss, CHANCE)
    return split(run(reverse_gradient(features, strength), training), source.size)


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
