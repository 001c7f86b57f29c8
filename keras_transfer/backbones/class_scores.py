"""Detect networks that end in class scores and are used as a backbone."""

from __future__ import annotations

from typing import NamedTuple

import keras

from keras_transfer import _keras

# Layers that may come between the scores and the output.
AFTER = (
    keras.layers.Activation,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Softmax,
)
NAMES = ("predictions", "probabilities", "classifier", "scores")
SCORES = (keras.activations.softmax, keras.activations.sigmoid)


class ClassScores(NamedTuple):
    """The layer of a network that gives class scores, and what it reads.

    Args:
        layer: The layer.
        before: The symbolic input of the layer, or None if it has no input.
        are_logits: Whether the output of the network is not activated.
    """

    layer: keras.Layer
    before: keras.KerasTensor | None
    are_logits: bool


def class_scores(network: keras.Model) -> ClassScores | None:
    """Return where a network computes its class scores, or None if it has none.

    A network ends in class scores if its last activation is softmax or sigmoid, or if
    its last layer with weights has a name such as `"predictions"`, as in
    `keras.applications` with `include_top=True`.
    """
    outputs = keras.tree.flatten(network.outputs)
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        return None
    layer, _, inputs = _keras.source(outputs[0])
    activated, named = _is_activated(layer), _is_named(layer)
    while isinstance(layer, AFTER) and inputs:
        layer, _, inputs = _keras.source(inputs[0])
        activated, named = activated or _is_activated(layer), _is_named(layer)
    if not (activated or named):
        return None
    return ClassScores(layer, inputs[0] if inputs else None, not activated)


def warning_of_scores(network: keras.Model) -> str | None:
    """Return a warning for a network that ends in class scores, or None."""
    found = class_scores(network)
    if found is None:
        return None
    before = None if found.before is None else _keras.source(found.before)[0]
    cut = "a keras.Model that ends in the features"
    if before in network.layers:  # a layer, not an operation of keras.ops
        cut = f"keras.Model(network.input, network.get_layer({before.name!r}).output)"
    size = network.outputs[0].shape[-1]
    return (
        f"The backbone '{network.name}' ends in {size} class scores "
        f"({found.layer.name!r}), so the new head classifies on the scores of old "
        "classes, which contain less information than the features before them. Build "
        "the network without its top: include_top=False in keras.applications, "
        f"`.backbone` of a Task of keras-hub, or {cut}."
    )


def _is_activated(layer: object) -> bool:
    softmax = isinstance(layer, keras.layers.Softmax)
    return softmax or getattr(layer, "activation", None) in SCORES


def _is_named(layer: object) -> bool:
    words = getattr(layer, "name", "").lower().split("_")
    return isinstance(layer, keras.layers.Dense) and not set(words).isdisjoint(NAMES)
