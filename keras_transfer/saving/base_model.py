"""What an adapter is made for: a backbone, where its layers are, its fingerprint."""

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

# In front of the path of a layer above the backbone, which begins at the model.
HEAD = "head:"
# Attributes that change what a layer computes from the same weights. No class names and
# no whole configs: both differ between versions of Keras for the same network.
SETTINGS = ("activation", "epsilon", "strides", "padding", "dilation_rate")


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """Which network it is, without its head and what adapters have changed.

    Args:
        name: Class of the backbone, for people.
        parameters: Number of its parameters, for people.
        architecture: Digest of the paths, shapes and settings of the layers.
        weights: Digest of the values.
    """

    name: str
    parameters: int
    architecture: str
    weights: str


def backbone_of(model: keras.Layer) -> keras.Layer:
    """Return the backbone in `model`, which is `model` itself where it has no other.

    That is its attribute `backbone`, if it has one, as Tasks and `TransferClassifier`
    do; or else the innermost model in it that holds all weights below the head.
    """
    own = getattr(model, "backbone", None)
    while isinstance(own, FrozenBackbone):
        own = own.layer
    layers = _keras.flat_layers(model)
    # A backbone of keras-hub may be made of another, as that of a detector is.
    inside = own is not model and not _is_of_hub(model)
    if inside and any(each is own for each in layers):
        return backbone_of(own)
    body = {
        id(variable)
        for layer in _base_layers(model).values()
        if not isinstance(layer, keras.layers.Normalization)  # of the inputs
        for variable in _keras.own_weights(layer)
    }
    whole = [
        each
        for each in layers
        if isinstance(each, keras.Model) and body <= {id(v) for v in each.weights}
    ]
    return min(whole, key=lambda each: len(_keras.flat_layers(each)), default=model)


def places_of(model: keras.Layer) -> dict[str, keras.Layer]:
    """Return the layers of `model` by their paths below the backbone.

    Those of the head have their path below `model`, after `HEAD`. A file with such
    paths fits each model of the same backbone, however deep that lies in it. Names
    that Keras numbers by itself, such as `dense_7`, are numbered anew in each layer or
    model: Keras counts all that a process has ever made.
    """
    backbone = backbone_of(model)
    head = {id(layer) for layer in head_layers(model)}
    ours = _ours(model)
    # The backbone first: a weight that the head shares with it goes by its path there.
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
    """Return the fingerprint of a backbone; it is the same with adapters or without.

    Args:
        backbone: What `backbone_of` returns.
        changed: Weights of the backbone that an adapter trains: their values are left
            out.
    """
    skipped = {id(variable) for variable in changed}
    layers = _base_layers(backbone)
    # By path, since attaching puts a layer's frozen weights before the others.
    rows = [
        (path, name, variable, _settings(layer))
        for path, layer in sorted(layers.items())
        for name, variable in sorted(addressed_weights(layer).items())
    ]
    shapes = [[path, name, list(v.shape), said] for path, name, v, said in rows]
    architecture = hashlib.blake2b(json.dumps(shapes).encode(), digest_size=16)
    digest = hashlib.blake2b(digest_size=16)
    for path, name, variable, _ in rows:
        if id(variable) not in skipped:
            value = _keras.value(variable)
            digest.update(f"{path}/{name} {value.dtype} {value.shape}".encode())
            digest.update(value.reshape(-1).view("uint8"))
    return Fingerprint(
        name=plain_of(backbone).__name__,
        parameters=sum(math.prod(variable.shape) for _, _, variable, _ in rows),
        architecture=architecture.hexdigest(),
        weights=digest.hexdigest(),
    )


def check_same(found: Fingerprint, wanted: Fingerprint, model: keras.Layer) -> None:
    """Check that `model` has the base that an adapter was trained on.

    Raises:
        ValueError: If it has another.
    """
    if found.architecture != wanted.architecture:
        raise ValueError(
            f"The adapter was trained on another network: a {wanted.name} of "
            f"{wanted.parameters:,} parameters. The backbone of {model.name!r} is a "
            f"{found.name} of {found.parameters:,}, with other layers or settings. "
            "Load it into the network that it was trained on. If the difference is "
            "meant, pass check_base=False."
        )
    if found.weights != wanted.weights:
        raise ValueError(
            f"The adapter was trained on other weights than those of {model.name!r}, "
            "though on a network of the same layers. Either that was another "
            "pretrained model, or the weights here were trained, cast or quantized "
            "since, or have an adapter merged into them, which would then act twice. "
            "Load it into the base that it was trained on. If the difference is meant, "
            "pass check_base=False."
        )


def weight_names(places: Mapping[str, keras.Layer]) -> dict[str, keras.Variable]:
    """Return the layers' own weights by path and name, each weight once."""
    found, seen = {}, set()
    for place, layer in places.items():
        for name, variable in addressed_weights(layer).items():
            if id(variable) not in seen:
                seen.add(id(variable))
                found[joined(place, name)] = variable
    return found


def keys_of(host: keras.Layer, places: Mapping[str, keras.Layer]) -> dict[str, str]:
    """Return the names in a file of the weights of `weights_below(host)`, by theirs.

    Those of a layer that has none of `places` are left out.
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
    """Return the weights that are among `variables`, by name.

    Raises:
        ValueError: If one of them has no name.
    """
    by_id = {id(variable): variable for variable in variables}
    found = {key: v for key, v in weights.items() if id(v) in by_id}
    if len(found) < len(by_id):
        named = {id(variable) for variable in found.values()}
        without = [v.path for key, v in by_id.items() if key not in named]
        raise ValueError(
            f"The weights {without[:5]}, which train, are neither in the backbone nor "
            "in the head. A file keeps what is in these."
        )
    return found


def paths_in(model: keras.Layer) -> dict[int, str]:
    """Return the path of each layer below `model` by the layer's id."""
    return {id(layer): path or layer.name for path, layer in located(model).items()}


def _base_layers(model: keras.Layer) -> dict[str, keras.Layer]:
    """Return the layers with weights that are the base's own, by their path."""
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
    """Return the ids of the adapters' parts and of what is in them."""
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
