"""Split a model below its head, so that its features can be cached."""

import inspect
from typing import NamedTuple

import keras

from keras_transfer import _keras
from keras_transfer.backbones.groups import LayerGroup

# Random layers that only regularize features. They are off when features are cached.
REGULARIZERS = (
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
REGULARIZER_NAMES = ("DropBlock2D", "DropPath", "StochasticDepth")

# In these packages, each random layer has a generator by which it is recognized.
PACKAGES = ("keras", "keras_cv", "keras_hub", "keras_transfer")


class Cut(NamedTuple):
    """The two parts of a model: inputs to features, and features to outputs."""

    body: keras.Model
    head: keras.Model


def cut_at_head(model: keras.Model, head: LayerGroup, *, random: bool = False) -> Cut:
    """Split a functional model into two parts. The upper part contains all of `head`.

    `Cut.head(Cut.body(x))` equals `model(x)`. Layers above the backbone that have no
    weights and are not random, such as pooling, go to the lower part, so the features
    are small. The dropout before a classifier stays in the upper part. Both parts use
    the layers of the model, not copies.

    Args:
        model: A built model with one output.
        head: The last of its layer groups.
        random: Whether layers below the head may augment at random. Their features
            cannot be cached.

    Returns:
        A `Cut`.

    Raises:
        ValueError: If the model cannot be split. The error says why: no symbolic
            inputs, an output in a structure, a layer with weights of both parts, layers
            of the backbone above the head, a Keras mask on the features, a layer below
            the head that adds a loss, or random augmentation below the head.
    """
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise ValueError("the model is not functional")
    if len(model.outputs) != 1:
        raise ValueError("the model has several outputs")
    # A Sequential has a single tensor, and may have no `output`.
    sequential = isinstance(model, keras.Sequential)
    if not sequential and keras.tree.is_nested(model.output):
        raise ValueError("the output of the model is in a dictionary or list")
    calls = _calls(model.outputs[0])
    below = _below(calls, {id(variable) for variable in head.variables})
    augmenting = [
        layer.name
        for key in below
        for layer in _layers(calls[key].operation)
        if _augments(layer)
    ]
    if augmenting and not random:
        raise ValueError(f"the layers {augmenting} below the head augment at random")
    tensors = {
        id(tensor): tensor
        for key, call in calls.items()
        if key not in below
        for tensor in call.inputs
        if _key(tensor) in below
    }
    tensors = list(tensors.values())
    features = tensors[0] if len(tensors) == 1 else tensors
    name = model.name
    # `input` of a Sequential is the input of its last call, perhaps in another model.
    inputs = model.inputs[0] if sequential else model.input
    body = keras.Model(inputs, features, name=f"{name}_below_head")
    beside = _keras.beside_outputs(body, inputs)
    if beside.masks:
        raise ValueError("the features have a Keras mask")
    if beside.losses:
        raise ValueError("layers below the head add their own losses")
    return Cut(body, keras.Model(features, model.outputs[0], name=f"{name}_head"))


class _Call(NamedTuple):
    operation: object
    inputs: list[keras.KerasTensor]


def _key(tensor: keras.KerasTensor) -> tuple[int, int]:
    operation, call, _ = _keras.source(tensor)
    return id(operation), call


def _calls(output: keras.KerasTensor) -> dict[tuple[int, int], _Call]:
    """Return all calls that `output` depends on, in an order of execution."""
    calls, waiting = {}, [output]
    while waiting:
        tensor = waiting[-1]
        operation, call, inputs = _keras.source(tensor)
        missing = [x for x in inputs if _key(x) not in calls]
        if missing:
            waiting.extend(missing)
            continue
        waiting.pop()
        calls.setdefault((id(operation), call), _Call(operation, inputs))
    return calls


def _below(calls: dict, head: set[int]) -> set[tuple[int, int]]:
    """Return the calls that compute the features."""
    needed = set()  # calls with weights of the backbone, and calls below them
    for key in reversed(calls):
        weights = {id(v) for v in getattr(calls[key].operation, "weights", ())}
        if weights & head and weights - head:
            name = calls[key].operation.name
            raise ValueError(f"the layer {name!r} has only a part of the head")
        if weights & head and key in needed:
            raise ValueError("layers of the backbone are above the head")
        if weights - head or key in needed:
            needed.add(key)
            needed.update(map(_key, calls[key].inputs))
    for key, call in calls.items():
        layers = _layers(call.operation)
        if any(_may_be_random(layer) or layer.weights for layer in layers):
            continue
        if all(_key(tensor) in needed for tensor in call.inputs):
            needed.add(key)
    return needed


def _layers(operation: object) -> list[keras.Layer]:
    if isinstance(operation, keras.Layer):
        return _keras.flat_layers(operation)
    return []


def _augments(layer: keras.Layer) -> bool:
    named = type(layer).__name__ in REGULARIZER_NAMES
    regularizes = named or isinstance(layer, REGULARIZERS)
    return _may_be_random(layer) and not layer.weights and not regularizes


def _may_be_random(layer: keras.Layer) -> bool:
    """Return whether a layer is random, or is a custom layer that may be random."""
    if _keras.is_random(layer):
        return True
    ours = type(layer).__module__.partition(".")[0] in PACKAGES
    return not ours and "training" in inspect.signature(layer.call).parameters
