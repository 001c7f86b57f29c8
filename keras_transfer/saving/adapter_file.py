"""Our own adapter file: a safetensors file of small weights, with a JSON header."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from collections.abc import Set

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.adapters.adapter import Plan
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.adapter_part import parts_of
from keras_transfer.adapters.in_place.layer_state import check_name
from keras_transfer.adapters.switching import attached
from keras_transfer.adapters.switching import places as paths_of
from keras_transfer.adapters.targets import nearest
from keras_transfer.adapters.targets import Target
from keras_transfer.backbones.layer_paths import joined
from keras_transfer.saving.adapter_header import Header
from keras_transfer.saving.adapter_header import header_of
from keras_transfer.saving.adapter_header import read_header
from keras_transfer.saving.base_model import backbone_of
from keras_transfer.saving.base_model import check_same
from keras_transfer.saving.base_model import chosen
from keras_transfer.saving.base_model import fingerprint
from keras_transfer.saving.base_model import HEAD
from keras_transfer.saving.base_model import paths_in
from keras_transfer.saving.base_model import places_of
from keras_transfer.saving.base_model import weight_names
from keras_transfer.saving.tensor_file import TensorFile
from keras_transfer.saving.tensor_file import write_tensors

LEAVE_OUT = " Pass head=False to load the adapter alone."


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
    of_the_head = _head_to_save(model, places, weights, parts)
    variables = trained | of_the_head
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
    header = read_header(file)
    name = header.name if name is None else name
    check_name(model, name)
    places = places_of(model)
    weights = weight_names(places)
    if check_base:
        # Before the paths, which mean nothing to another network.
        changed = [weights[key] for key in file.specs if key in weights]
        check_same(fingerprint(backbone_of(model), changed), header.base, model)
    of_head = {key for key in file.specs if key.startswith(HEAD)}
    has_head = any(place.startswith(HEAD) for place in places)
    wanted = set(file.specs) - (set() if head and has_head else of_head)
    targets = _targets(model, file, header, wanted, places)
    _check_head(model, file, wanted, weights)
    own = {key: weights[key] for key in sorted(wanted & set(weights))}
    plan = header.plan(model, targets)
    _check_own(file, plan, own, weights)
    names = _part_names(file, plan, targets, wanted - set(own))
    values = file.read(sorted(wanted))
    of_parts = {
        path: {key: values[tensor] for key, tensor in tensors.items()}
        for path, tensors in names.items()
    }
    plan.install(model, name, of_parts, [(v, values[key]) for key, v in own.items()])
    if not of_head:
        about = "it has no head"
    elif of_head <= wanted:
        about = f"its head too, {len(of_head)} weights"
    else:
        about = "its head was left out" + ("" if has_head else ": the model has none")
    return f"{plan.summary(model, name)}; from {path.name!r}, {about}"


def _targets(
    model: keras.Layer,
    file: TensorFile,
    header: Header,
    wanted: Set[str],
    places: Mapping[str, keras.Layer],
) -> dict[str, Target]:
    """Return the layers that the adapter in a file is on, by their path in the file.

    Raises:
        ValueError: If the model lacks one, or there are none.
    """
    weights, paths = weight_names(places), paths_in(model)
    own = sorted(wanted & set(weights))
    of_parts = [key.rpartition("/")[0] for key in sorted(wanted - set(own))]
    for place in of_parts:
        if place not in places:
            raise ValueError(
                f"{str(file.path)!r} has weights for the layer {place!r}, which "
                f"{model.name!r} does not have. {nearest(place, places)}"
                + (LEAVE_OUT if place.startswith(HEAD) else "")
            )
    owners = [key.rpartition("/")[0] for key in own if not key.startswith(HEAD)]
    hosts = dict.fromkeys(of_parts if header.technique.parts else owners)
    if not hosts:
        raise ValueError(
            f"{str(file.path)!r} has no weights of an adapter for {model.name!r} "
            "without its head."
            if len(wanted) < len(file.specs)
            else f"{str(file.path)!r} has no weights of an adapter."
        )
    return {place: Target(places[place], paths[id(places[place])]) for place in hosts}


def _check_own(
    file: TensorFile,
    plan: Plan,
    own: Mapping[str, keras.Variable],
    weights: Mapping[str, keras.Variable],
) -> None:
    """Check that a file has those of the model's own weights that the plan trains.

    Raises:
        ValueError: If it has others, or one does not fit.
    """
    trained = chosen(weights, plan.trained)
    given, needed = ({k for k in x if not k.startswith(HEAD)} for x in (own, trained))
    if given != needed:
        raise ValueError(
            f"{str(file.path)!r} has the weights {sorted(given - needed)[:5]} of the "
            f"model's own, which {plan.recipe!r} does not train, and lacks "
            f"{sorted(needed - given)[:5]}, which it does."
        )
    for key in sorted(given):
        file.expect(key, own[key].shape, own[key].dtype)


def _part_names(
    file: TensorFile, plan: Plan, targets: Mapping[str, Target], wanted: Set[str]
) -> dict[str, dict[str, str]]:
    """Return the tensor of each weight of the parts, by the paths of their layers.

    The shapes are compared before a weight is made, so that a file cannot ask for more
    memory than it has itself.

    Raises:
        ValueError: If one is missing, left over, or has another shape.
    """
    names: dict[str, dict[str, str]] = {}
    with_parts = bool(plan.recipe.parts)  # others have no pairs at all
    for place, (target, part) in zip(targets, plan.pairs, strict=with_parts):
        names[target.path] = {}
        for key, (shape, _) in part.weight_specs(target.layer).items():
            names[target.path][key] = joined(place, key)
            file.expect(joined(place, key), shape, "float32")
    surplus = sorted(wanted - {x for each in names.values() for x in each.values()})
    if surplus:
        raise ValueError(
            f"{str(file.path)!r} has the tensors {surplus[:5]}, which the "
            f"{type(plan.recipe).__name__} that it names has no weights for."
        )
    return names


def _check_head(
    model: keras.Layer,
    file: TensorFile,
    wanted: Set[str],
    weights: Mapping[str, keras.Variable],
) -> None:
    """Check that the head in a file, if it has one, is the model's.

    Raises:
        ValueError: If it is another.
    """
    if not any(key.startswith(HEAD) for key in wanted):
        return
    for key, variable in weights.items():
        if key.startswith(HEAD) and (variable.trainable or key in wanted):
            try:
                file.expect(key, variable.shape, variable.dtype)
            except ValueError as problem:
                raise ValueError(
                    f"The head of {model.name!r} is not that of the file: {problem}"
                    f"{LEAVE_OUT}"
                ) from problem


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
    with np.errstate(over="ignore"):  # the error below names it
        kept = value.astype(dtype)
    if np.isfinite(value).all() and not np.isfinite(kept).all():
        raise ValueError(
            f"The weight {name!r} has values up to {np.abs(value).max():.3g}, which "
            f"{dtype} cannot hold. Save it in float32."
        )
    return kept
