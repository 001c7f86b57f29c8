"""Detect networks that end in class scores and are used as a backbone."""

from __future__ import annotations

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


def warning_of_scores(network: keras.Model) -> str | None:
    """Return a warning for a network that ends in class scores, or None.

    A network ends in class scores if its last activation is softmax or sigmoid, or if
    its last layer with weights has a name such as `"predictions"`, as in
    `keras.applications` with `include_top=True`.
    """
    outputs = keras.tree.flatten(network.outputs)
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        return None
    layer, _, inputs = _keras.source(outputs[0])
    is_score = _gives_scores(layer)
    while isinstance(layer, AFTER) and inputs:
        layer, _, inputs = _keras.source(inputs[0])
        is_score = is_score or _gives_scores(layer)
    if not is_score:
        return None
    before = _keras.source(inputs[0])[0] if inputs else None
    cut = "a keras.Model that ends in the features"
    if before in network.layers:  # a layer, not an operation of keras.ops
        cut = f"keras.Model(network.input, network.get_layer({before.name!r}).output)"
    return (
        f"The backbone '{network.name}' ends in {outputs[0].shape[-1]} class scores "
        f"({layer.name!r}), so the new head classifies on the scores of old classes, "
        "which contain less information than the features before them. Build the "
        "network without its top: include_top=False in keras.applications, `.backbone` "
        f"of a Task of keras-hub, or {cut}."
    )


def _gives_scores(layer: object) -> bool:
    if isinstance(layer, keras.layers.Softmax):
        return True
    if getattr(layer, "activation", None) in SCORES:
        return True
    words = getattr(layer, "name", "").lower().split("_")
    return isinstance(layer, keras.layers.Dense) and not set(words).isdisjoint(NAMES)
