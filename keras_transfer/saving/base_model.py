"""The base model of an adapter: its backbone, its layer paths and its fingerprint."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import sys
from collections.abc import Iterable
from collections.abc import Mapping

import keras

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.in_place.adapted_layer import base_of
from keras_transfer.adapters.in_place.adapted_layer import plain_of
from keras_transfer.adapters.own_layer import weights_below
from keras_transfer.adapters.targets import head_layers
from keras_transfer.backbones.addresses import addressed_weights
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.layer_paths import joined
from keras_transfer.backbones.layer_paths import located
from keras_transfer.backbones.layer_paths import numbered
from keras_transfer.quantization.packed_layers import float_shapes

# Prefix of the path of a head layer. Such a path begins at the model, not the backbone.
HEAD = "head:"
# Attributes that change what a layer computes from the same weights. Class names and
# whole configs are not used, because they differ between versions of Keras.
SETTINGS = ("activation", "epsilon", "strides", "padding", "dilation_rate")


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """Identifies a network without its head and its adapters.

    Args:
        name: Class of the backbone, for error messages.
        parameters: Number of its parameters, for error messages.
        architecture: Digest of the paths, shapes and settings of the layers.
        weights: Digest of the values of the weights.
    """

    name: str
    parameters: int
    architecture: str
    weights: str


def backbone_of(model: keras.Layer) -> keras.Layer:
    """Return the backbone of `model`, or `model` itself if it has no backbone.

    The backbone is the attribute `backbone`, which Tasks and `TransferClassifier`
    have. Without this attribute, it is the innermost model that contains all weights
    below the head.
    """
    own = getattr(model, "backbone", None)
    while isinstance(own, FrozenBackbone):
        own = own.layer
    layers = _keras.flat_layers(model)
    # A backbone of keras-hub can contain another one, such as a detector's backbone.
    inside = own is not model and not _is_of_hub(model)
    if inside and any(each is own for each in layers):
        return backbone_of(own)
    body = {
        id(variable)
        for layer in _base_layers(model).values()
        if not isinstance(layer, keras.layers.Normalization)  # it scales the inputs
        for variable in _keras.own_weights(layer)
    }
    whole = [
        each
        for each in layers
        if isinstance(each, keras.Model) and body <= {id(v) for v in each.weights}
    ]
    return min(whole, key=lambda each: len(_keras.flat_layers(each)), default=model)


def places_of(model: keras.Layer) -> dict[str, keras.Layer]:
    """Return the layers of `model` by their paths relative to the backbone.

    The path of a head layer is relative to `model` and begins with `HEAD`. A file with
    such paths fits every model with the same backbone, at any depth. Names that Keras
    numbers, such as `dense_7`, are numbered again within each layer or model, because
    Keras counts all layers that a process has created.
    """
    backbone = backbone_of(model)
    head = {id(layer) for layer in head_layers(model)}
    ours = _ours(model)
    # The backbone comes first, so a weight that the head shares has its backbone path.
    places = {
        path: layer
        for path, layer in numbered(backbone, base_of).items()
        if id(layer) not in head | ours
    }
    return places | {
        HEAD + path: layer
        for path, layer in numbered(model, base_of).items()
        if id(layer) in head
    }


def fingerprint(
    backbone: keras.Layer, changed: Iterable[keras.Variable] = ()
) -> Fingerprint:
    """Return the fingerprint of a backbone, which does not depend on its adapters.

    Args:
        backbone: The backbone that `backbone_of` returns.
        changed: Weights of the backbone that an adapter trains. Their values are left
            out of the digest.
    """
    skipped = {id(variable) for variable in changed}
    layers = _base_layers(backbone)
    # Sorted by path, because attaching changes the order of a layer's weights.
    rows = [
        (path, name, variable)
        for path, layer in sorted(layers.items())
        for name, variable in sorted(addressed_weights(layer).items())
    ]
    shapes = [
        [path, name, list(shape), _settings(layer)]
        for path, layer in sorted(layers.items())
        for name, shape in sorted(float_shapes(layer).items())
    ]
    architecture = hashlib.blake2b(json.dumps(shapes).encode(), digest_size=16)
    digest = hashlib.blake2b(digest_size=16)
    for path, name, variable in rows:
        if id(variable) not in skipped:
            value = _keras.value(variable)
            digest.update(f"{path}/{name} {value.dtype} {value.shape}".encode())
            digest.update(value.reshape(-1).view("uint8"))
    return Fingerprint(
        name=plain_of(backbone).__name__,
        parameters=sum(math.prod(shape) for _, _, shape, _ in shapes),
        architecture=architecture.hexdigest(),
        weights=digest.hexdigest(),
    )


def check_same(found: Fingerprint, wanted: Fingerprint, model: keras.Layer) -> None:
    """Check that `model` has the base that an adapter was trained on.

    Raises:
        ValueError: If the base of `model` differs.
    """
    if found.architecture != wanted.architecture:
        raise ValueError(
            f"The adapter was trained on another network: a {wanted.name} with "
            f"{wanted.parameters:,} parameters. The backbone of {model.name!r} is a "
            f"{found.name} with {found.parameters:,} parameters, and its layers or "
            "settings differ. Load the adapter into the network that it was trained "
            "on. If the difference is intended, pass check_base=False."
        )
    modes = {x.quantization_mode for x in _keras.flat_layers(model)} - {None}
    if found.weights != wanted.weights and modes:
        raise ValueError(
            f"The backbone of {model.name!r} is quantized ({', '.join(sorted(modes))}),"
            " and the adapter was trained on other weights: on the float weights, or "
            "on weights that were quantized in another way. It would add its update to "
            "kernels that it was not trained with. Load it into the model that it was "
            "trained on. If the difference is intended, pass check_base=False."
        )
    if found.weights != wanted.weights:
        raise ValueError(
            f"The adapter was trained on other weights than the weights of "
            f"{model.name!r}, although the layers are the same. Either the pretrained "
            "model differs, or the weights of this model were trained, cast or "
            "quantized, or an adapter was merged into them, which would then act "
            "twice. Load the adapter into the base that it was trained on. If the "
            "difference is intended, pass check_base=False."
        )


def weight_names(places: Mapping[str, keras.Layer]) -> dict[str, keras.Variable]:
    """Return the layers' own weights by path and name, each weight only once."""
    found, seen = {}, set()
    for place, layer in places.items():
        for name, variable in addressed_weights(layer).items():
            if id(variable) not in seen:
                seen.add(id(variable))
                found[joined(place, name)] = variable
    return found


def keys_of(host: keras.Layer, places: Mapping[str, keras.Layer]) -> dict[str, str]:
    """Return a dict of a name in `weights_below(host)` to the name in a file.

    Weights of layers that are not in `places` are left out.
    """
    at = {id(layer): place for place, layer in places.items()}
    keys: dict[int, str] = {}
    for layer in _keras.flat_layers(host):
        if id(layer) in at:
            for name, variable in addressed_weights(layer).items():
                keys.setdefault(id(variable), joined(at[id(layer)], name))
    below = weights_below(host).items()
    return {own: keys[id(v)] for own, v in below if id(v) in keys}


def chosen(
    weights: Mapping[str, keras.Variable], variables: Iterable[keras.Variable]
) -> dict[str, keras.Variable]:
    """Return the weights that are in `variables`, by name.

    Raises:
        ValueError: If one of the variables has no name in `weights`.
    """
    by_id = {id(variable): variable for variable in variables}
    found = {key: v for key, v in weights.items() if id(v) in by_id}
    if len(found) < len(by_id):
        named = {id(variable) for variable in found.values()}
        without = [v.path for key, v in by_id.items() if key not in named]
        raise ValueError(
            f"The trainable weights {without[:5]} are neither in the backbone nor in "
            "the head. A file can only contain weights of the backbone and the head."
        )
    return found


def paths_in(model: keras.Layer) -> dict[int, str]:
    """Return the path of each layer below `model` by the layer's id."""
    return {id(layer): path or layer.name for path, layer in located(model).items()}


def _base_layers(model: keras.Layer) -> dict[str, keras.Layer]:
    """Return the base's layers with weights, without adapters and head, by path."""
    skipped = _ours(model) | {id(layer) for layer in head_layers(model)}
    return {
        path: layer
        for path, layer in numbered(model, base_of).items()
        if id(layer) not in skipped and _keras.own_weights(layer)
    }


def _is_of_hub(model: keras.Layer) -> bool:
    hub = sys.modules.get("keras_hub")
    return hub is not None and isinstance(model, hub.models.Backbone)


def _ours(model: keras.Layer) -> set[int]:
    """Return the ids of the adapters' parts and of the layers inside them."""
    return {
        id(each) for _, part in all_parts(model) for each in _keras.flat_layers(part)
    }


def _settings(layer: keras.Layer) -> dict:
    found = {}
    for name in SETTINGS:
        value = getattr(layer, name, None)
        if callable(value):
            value = getattr(value, "__name__", type(value).__name__)
        if value is not None:
            found[name] = value if isinstance(value, str | float) else str(value)
    return found
