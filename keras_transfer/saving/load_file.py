"""load_file: attach the adapter of a file of ours, whole or not at all."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from collections.abc import Set

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.adapters.adapter import Plan
from keras_transfer.adapters.in_place.layer_state import check_name
from keras_transfer.adapters.switching import attached
from keras_transfer.adapters.targets import nearest
from keras_transfer.adapters.targets import Target
from keras_transfer.backbones.layer_paths import joined
from keras_transfer.saving.adapter_header import Header
from keras_transfer.saving.adapter_header import read_header
from keras_transfer.saving.base_model import backbone_of
from keras_transfer.saving.base_model import check_same
from keras_transfer.saving.base_model import chosen
from keras_transfer.saving.base_model import fingerprint
from keras_transfer.saving.base_model import HEAD
from keras_transfer.saving.base_model import paths_in
from keras_transfer.saving.base_model import places_of
from keras_transfer.saving.base_model import weight_names
from keras_transfer.saving.own_layers import layers_in
from keras_transfer.saving.own_layers import LEAVE_OUT
from keras_transfer.saving.tensor_file import TensorFile


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
        found = fingerprint(backbone_of(model))
        if found != header.base:
            # Weights of the model's own that learned are not in it, others that the
            # adapter has for itself are.
            changed = [weights[key] for key in file.specs if key in weights]
            found = fingerprint(backbone_of(model), changed)
        check_same(found, header.base, model)
    of_head = {key for key in file.specs if key.startswith(HEAD)}
    has_head = any(place.startswith(HEAD) for place in places)
    wanted = set(file.specs) - (set() if head and has_head else of_head)
    targets = _targets(model, file, header, wanted, places)
    plan = header.plan(model, targets)
    if plan.trained:
        _check_head(model, file, wanted, weights)
        owned, keys = [], {}
    else:
        owned, keys = layers_in(model, file, plan, wanted, places)
        plan = dataclasses.replace(plan, owned=tuple(owned))
    own = {key: weights[key] for key in sorted(wanted & set(weights) - set(keys))}
    _check_own(file, plan, own, weights)
    names = _part_names(file, plan, targets, wanted - set(own) - set(keys))
    values = file.read(sorted(wanted))
    _check_under(model, own, values, plan)
    of_parts = {
        path: {key: values[tensor] for key, tensor in tensors.items()}
        for path, tensors in names.items()
    }
    for key, (where, weight) in keys.items():
        of_parts.setdefault(where, {})[weight] = values[key]
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
    for key, variable in own.items():
        file.expect(key, variable.shape, variable.dtype)


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


def _check_under(
    model: keras.Layer,
    own: Mapping[str, keras.Variable],
    values: Mapping[str, np.ndarray],
    plan: Plan,
) -> None:
    """Check that weights under pairs of the head take nothing from other adapters.

    Raises:
        ValueError: If they differ from the model's, and it has adapters.
    """
    others = [] if plan.trained else list(attached(model))
    changed = [
        key
        for key, variable in own.items()
        if others and not np.array_equal(_keras.value(variable), values[key])
    ]
    if changed:
        raise ValueError(
            f"The file has other weights {changed[:5]} than {model.name!r}, under the "
            f"adapter's pairs in the head. They would take the place of the model's, "
            f"which its adapters {others} were made for. Load it into a model of its "
            "own."
        )


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
