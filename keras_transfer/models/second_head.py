"""A second label head beside the first, for methods that set two against each other."""

from __future__ import annotations

import keras
import numpy as np

from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.two_streams import last_activation


def make_second_head(model: DomainAdaptation, head: keras.Layer | None) -> keras.Layer:
    """Return a built head like the label head of `model`, with weights of its own.

    Raises:
        TypeError: If `head` is no layer.
        ValueError: If its outputs are others, or its weights are those of the first.
    """
    first = model.label_head
    if head is None:
        config = first.get_config()
        config["name"] = f"{first.name}_second"
        head = type(first).from_config(config)
    if not isinstance(head, keras.Layer):
        raise TypeError(
            f"The second head is a {type(head).__name__}. Pass a Keras layer or model "
            "with the outputs of the label head, or None."
        )
    shape = tuple(head(keras.Input((model.width,))).shape)
    if shape != (None, model.classes):
        raise ValueError(
            f"The second head '{head.name}' gives outputs of shape {shape}, the label "
            f"head of (None, {model.classes}). Both tell the same classes."
        )
    activations = [last_activation(each) for each in (first, head)]
    if None not in activations and activations[0] is not activations[1]:
        names = " and ".join(each.__name__ for each in activations)
        raise ValueError(
            f"The heads '{first.name}' and '{head.name}' end in {names}. Their outputs "
            "are compared, and read in one way: end both alike."
        )
    if head is first or _same(first.get_weights(), head.get_weights()):
        raise ValueError(
            f"The heads '{first.name}' and '{head.name}' have the same weights, so "
            "that they could never differ. Initializers with a fixed seed do that: "
            "pass a second head with others."
        )
    return head


def _same(first: list, second: list) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a, b) for a, b in zip(first, second, strict=True)
    )
