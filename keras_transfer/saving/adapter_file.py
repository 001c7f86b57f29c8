"""save_file: write an adapter file, a safetensors file with a JSON header."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.adapter_part import parts_of
from keras_transfer.adapters.own_layer import own_name
from keras_transfer.adapters.own_layer import weights_below
from keras_transfer.adapters.switching import attached
from keras_transfer.adapters.switching import own_places
from keras_transfer.adapters.switching import places as paths_of
from keras_transfer.adapters.targets import Target
from keras_transfer.backbones.layer_paths import joined
from keras_transfer.saving.adapter_header import header_of
from keras_transfer.saving.base_model import backbone_of
from keras_transfer.saving.base_model import chosen
from keras_transfer.saving.base_model import fingerprint
from keras_transfer.saving.base_model import HEAD
from keras_transfer.saving.base_model import keys_of
from keras_transfer.saving.base_model import paths_in
from keras_transfer.saving.base_model import places_of
from keras_transfer.saving.base_model import weight_names
from keras_transfer.saving.tensor_file import write_tensors


def save_file(
    model: keras.Layer, path: pathlib.Path, name: str, *, dtype: str, head: bool
) -> str:
    """Write the adapter `name` of `model` to `path`, and return a line to print.

    Raises:
        ValueError: If the adapter cannot be saved, or not in `dtype`.
        OSError: If the file cannot be written.
    """
    adapter = attached(model)[name]
    places = places_of(model)
    _check_all_there(model, places, name)
    if not head:
        places = {k: v for k, v in places.items() if not k.startswith(HEAD)}
    parts = _parts(model, places, name)
    weights = weight_names(places)
    targets = [target for target, _ in parts.values()]
    if not adapter.parts:
        targets = _learning(model, places)
    trained = chosen(weights, adapter.trained(model, targets))
    owned = _owned(model, places, name)
    variables = trained | owned | _head_to_save(model, places, weights, parts, owned)
    for place, (_, part) in parts.items():
        for each, variable in part.named_weights.items():
            key = joined(place, each)
            if key in variables:
                raise ValueError(f"Two weights of {model.name!r} are named {key!r}.")
            variables[key] = variable
    header = header_of(
        adapter,
        parts,
        name=name,
        base=fingerprint(backbone_of(model), trained.values()),
        num_tensors=len(variables),
        dtype=dtype,
    )
    tensors = {k: _to_array(k, v, dtype) for k, v in sorted(variables.items())}
    size = write_tensors(path, tensors, header.metadata())
    of_head = sum(v.size for k, v in tensors.items() if k.startswith(HEAD))
    total = sum(value.size for value in tensors.values())
    return (
        f"{type(adapter).__name__} {name!r} of {model.name!r} saved to {path.name!r}: "
        f"{total - of_head:,} parameters of the adapter, {of_head:,} of the head, "
        f"{size:,} bytes"
    )


def _parts(
    model: keras.Layer, places: Mapping[str, keras.Layer], name: str
) -> dict[str, tuple[Target, Part]]:
    """Return the layers and parts of the adapter `name` by path."""
    paths = paths_in(model)
    return {
        place: (Target(layer, paths[id(layer)]), part)
        for place, layer in places.items()
        for part in parts_of(layer)
        if part.name == name and not part.replaces and part.named_weights
    }


def _owned(
    model: keras.Layer, places: Mapping[str, keras.Layer], name: str
) -> dict[str, keras.Variable]:
    """Return the weights of the adapter's own layers, such as its head.

    Each has the name of the model's weight that it replaces.
    """
    return {
        key: part.named_weights[own_name(own)]
        for _, host, part in own_places(model, name)
        for own, key in keys_of(host, places).items()
    }


def _check_all_there(
    model: keras.Layer, places: Mapping[str, keras.Layer], name: str
) -> None:
    """Check that every layer of the adapter is in the backbone or in the head."""
    known = {id(layer) for layer in places.values()}
    outside = [x for x, layer, _ in paths_of(model, name) if id(layer) not in known]
    outside += [
        path
        for path, layer, _ in own_places(model, name)
        if len(keys_of(layer, places)) < len(weights_below(layer))
    ]
    if outside:
        raise ValueError(
            f"The adapter {name!r} is also on {outside[:5]}. These layers are neither "
            f"in the backbone of {model.name!r}, {backbone_of(model).name!r}, nor in "
            "its head. A file can only contain layers of the backbone and the head."
        )


def _learning(model: keras.Layer, places: Mapping[str, keras.Layer]) -> list[Target]:
    """Return the layers below the head whose own weights can train."""
    paths = paths_in(model)
    return [
        Target(layer, paths[id(layer)])
        for place, layer in places.items()
        if not place.startswith(HEAD) and _keras.learnable(layer)
    ]


def _head_to_save(
    model: keras.Layer,
    places: Mapping[str, keras.Layer],
    weights: Mapping[str, keras.Variable],
    parts: Mapping[str, tuple[Target, Part]],
    owned: Mapping[str, keras.Variable],
) -> dict[str, keras.Variable]:
    """Return the weights of the model's head layers that train or have a part.

    All weights of such a layer are returned. If the model has no trainable weights and
    the adapter has no own layers, the weights of the whole head are returned, because
    the model was frozen after training.
    """
    frozen = not owned and not any(each.trainable for each in model.weights)
    along = {
        id(variable)
        for place, layer in places.items()
        if place.startswith(HEAD)
        and (
            frozen
            or place in parts
            or any(each.trainable for each in _keras.own_weights(layer))
        )
        for variable in _keras.own_weights(layer)
    }
    # A weight that is shared with the backbone has a name there and is not saved.
    return {
        key: variable
        for key, variable in weights.items()
        if id(variable) in along and key.startswith(HEAD) and key not in owned
    }


def _to_array(name: str, variable: keras.Variable, dtype: str) -> np.ndarray:
    """Return the value of a variable in the dtype of the file."""
    value = _keras.value(variable)
    if "float" not in keras.backend.standardize_dtype(variable.dtype):
        return value
    if value.dtype == "float64" and dtype == "float32":
        return value  # the model computes in float64
    with np.errstate(over="ignore"):  # the error below reports the overflow
        kept = value.astype(dtype)
    if np.isfinite(value).all() and not np.isfinite(kept).all():
        raise ValueError(
            f"The weight {name!r} has values up to {np.abs(value).max():.3g}, which "
            f"are too large for {dtype}. Save the adapter in float32."
        )
    return kept
