"""Our own adapter file: a safetensors file of small weights, with a JSON recipe."""

from __future__ import annotations

import contextlib
import io
import pathlib
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.adapters.adapter import check_name
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.adapter_part import parts_of
from keras_transfer.adapters.switching import attached
from keras_transfer.adapters.switching import places as paths_of
from keras_transfer.adapters.targets import Target
from keras_transfer.saving.adapter_header import read_recipe
from keras_transfer.saving.adapter_header import recipe_of
from keras_transfer.saving.base_model import backbone_of
from keras_transfer.saving.base_model import check_same
from keras_transfer.saving.base_model import chosen
from keras_transfer.saving.base_model import fingerprint
from keras_transfer.saving.base_model import HEAD
from keras_transfer.saving.base_model import joined
from keras_transfer.saving.base_model import paths_in
from keras_transfer.saving.base_model import places_of
from keras_transfer.saving.base_model import weight_names
from keras_transfer.saving.restored import restored
from keras_transfer.saving.tensor_file import TensorFile
from keras_transfer.saving.tensor_file import write_tensors


def save_file(
    model: keras.Layer, path: pathlib.Path, name: str, *, dtype: str, head: bool
) -> str:
    """Write the adapter `name` of `model` to `path`, and return a line about it.

    Raises:
        ValueError: If the adapter cannot be kept in a file, or not in `dtype`.
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
    beside = _head_to_save(model, places, weights, parts)
    variables = trained | beside
    for place, (_, part) in parts.items():
        for each, variable in part.named_weights.items():
            key = joined(place, each)
            if key in variables:
                raise ValueError(f"Two weights of {model.name!r} are named {key!r}.")
            variables[key] = variable
    recipe = recipe_of(
        adapter,
        parts,
        name=name,
        base=fingerprint(backbone_of(model), trained.values()),
        num_tensors=len(variables),
        dtype=dtype,
    )
    tensors = {k: _to_array(k, v, dtype) for k, v in sorted(variables.items())}
    size = write_tensors(path, tensors, recipe.metadata())
    of_head = sum(v.size for k, v in tensors.items() if k.startswith(HEAD))
    total = sum(value.size for value in tensors.values())
    return (
        f"{type(adapter).__name__} {name!r} of {model.name!r} saved to {path.name!r}: "
        f"{total - of_head:,} parameters of the adapter, {of_head:,} of the head, "
        f"{size:,} bytes"
    )


def load_file(
    model: keras.Layer,
    path: pathlib.Path,
    name: str | None,
    *,
    head: bool,
    check_base: bool,
) -> str:
    """Attach the adapter of a file to `model`, and return a line about it.

    Raises:
        ValueError: If anything in the file is wrong, or does not fit the model.
            Nothing is changed then.
    """
    file = TensorFile(path)
    recipe = read_recipe(file)
    name = recipe.name if name is None else name
    check_name(model, name)
    backbone, places = backbone_of(model), places_of(model)
    if check_base:
        # Before the paths, which mean nothing to another network.
        changed = weight_names(places)
        changed = [changed[key] for key in file.specs if key in changed]
        check_same(fingerprint(backbone, changed), recipe.base, model)
    of_head = {key for key in file.specs if key.startswith(HEAD)}
    has_head = any(place.startswith(HEAD) for place in places)
    wanted = set(file.specs) - (set() if head and has_head else of_head)
    loaded = restored(model, file, recipe, wanted, places)
    values = _keras.snapshot(loaded.own.values())
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            loaded.attach(model, name)
    except BaseException:
        _keras.restore(loaded.own.values(), values)
        raise
    if not of_head:
        about = "it has no head"
    elif of_head <= wanted:
        about = f"its head too, {len(of_head)} weights"
    else:
        about = "its head was left out" + ("" if has_head else ": the model has none")
    return f"{said.getvalue().strip()}; from {path.name!r}, {about}"


def _parts(
    model: keras.Layer, places: Mapping[str, keras.Layer], name: str
) -> dict[str, tuple[Target, Part]]:
    """Return the layers that the adapter `name` is on, with their parts, by path."""
    paths = paths_in(model)
    return {
        place: (Target(layer, paths[id(layer)]), part)
        for place, layer in places.items()
        for part in parts_of(layer)
        if part.name == name
    }


def _check_all_there(
    model: keras.Layer, places: Mapping[str, keras.Layer], name: str
) -> None:
    """Check that no layer of the adapter is outside of backbone and head."""
    known = {id(layer) for layer in places.values()}
    outside = [x for x, layer, _ in paths_of(model, name) if id(layer) not in known]
    if outside:
        raise ValueError(
            f"The adapter {name!r} is also on {outside[:5]}, which are neither in the "
            f"backbone of {model.name!r}, {backbone_of(model).name!r}, nor in the "
            "head. A file keeps what is in these."
        )


def _learning(model: keras.Layer, places: Mapping[str, keras.Layer]) -> list[Target]:
    """Return the layers below the head of which own weights are not held."""
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
) -> dict[str, keras.Variable]:
    """Return the weights of the head's layers that train, or are under a part.

    All of them where nothing in the model trains: it was frozen after training.
    """
    frozen = not any(each.trainable for each in model.weights)
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
    # What is shared with the backbone has its name there, and stays there.
    return {k: v for k, v in weights.items() if id(v) in along and k.startswith(HEAD)}


def _to_array(name: str, variable: keras.Variable, dtype: str) -> np.ndarray:
    """Return the value of a variable as the file keeps it."""
    value = _keras.value(variable)
    if "float" not in keras.backend.standardize_dtype(variable.dtype):
        return value
    if value.dtype == "float64" and dtype == "float32":
        return value  # of a model that computes in it
    with np.errstate(over="ignore"):  # told below, with the name
        kept = value.astype(dtype)
    if np.isfinite(value).all() and not np.isfinite(kept).all():
        raise ValueError(
            f"The weight {name!r} has values up to {np.abs(value).max():.3g}, which "
            f"{dtype} cannot hold. Save it in float32."
        )
    return kept
