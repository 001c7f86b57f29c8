"""load_file: attach the adapter of a file of `save_file`."""

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
    """Attach the adapter of a file to `model`, and return a line to print.

    Raises:
        ValueError: If the file is damaged or does not fit the model. In both cases the
            model does not change.
    """
    file = TensorFile(path)
    header = read_header(file)
    name = header.name if name is None else name
    check_name(model, name)
    places = places_of(model)
    weights = weight_names(places)
    if check_base:
        # Checked before the paths, which are meaningless in another network.
        found = fingerprint(backbone_of(model))
        if found != header.base:
            # The fingerprint in the file leaves out the model's weights that trained,
            # but not those that are replaced by the adapter's own layers.
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
        about = "which has no head"
    elif of_head <= wanted:
        about = f"with its head ({len(of_head)} weights)"
    else:
        why = "" if has_head else " because the model has no head"
        about = f"without its head{why}"
    return f"{plan.summary(model, name)}; loaded from {path.name!r} {about}"


def _targets(
    model: keras.Layer,
    file: TensorFile,
    header: Header,
    wanted: Set[str],
    places: Mapping[str, keras.Layer],
) -> dict[str, Target]:
    """Return the layers of the adapter in a file by their paths in the file.

    Raises:
        ValueError: If the model lacks one of the layers, or the file names no layers.
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
    """Check that a file has exactly the model's own weights that the plan trains.

    Raises:
        ValueError: If the file has other weights, or a weight does not fit.
    """
    trained = chosen(weights, plan.trained)
    given, needed = ({k for k in x if not k.startswith(HEAD)} for x in (own, trained))
    if given != needed:
        raise ValueError(
            f"{str(file.path)!r} does not fit {plan.recipe!r}. It has the weights "
            f"{sorted(given - needed)[:5]} of the model's own layers, which this "
            f"technique does not train, and lacks {sorted(needed - given)[:5]}, which "
            "the technique trains."
        )
    for key, variable in own.items():
        file.expect(key, variable.shape, variable.dtype)


def _part_names(
    file: TensorFile, plan: Plan, targets: Mapping[str, Target], wanted: Set[str]
) -> dict[str, dict[str, str]]:
    """Return the names of the tensors for the weights of each part, by layer path.

    The shapes are compared before a weight is created, so a file cannot cause the use
    of more memory than its own size.

    Raises:
        ValueError: If a tensor is missing, not needed, or has another shape.
    """
    names: dict[str, dict[str, str]] = {}
    places = {target.path: place for place, target in targets.items()}
    for target, part in plan.pairs:
        if target.path not in places:
            continue  # a part without weights, of which the file says nothing
        place = places[target.path]
        names[target.path] = {}
        for key, (shape, _) in part.weight_specs(target.layer).items():
            names[target.path][key] = joined(place, key)
            file.expect(joined(place, key), shape, "float32")
    surplus = sorted(wanted - {x for each in names.values() for x in each.values()})
    if surplus:
        raise ValueError(
            f"{str(file.path)!r} has the tensors {surplus[:5]}, but its technique "
            f"{type(plan.recipe).__name__} has no weights for them."
        )
    return names


def _check_under(
    model: keras.Layer,
    own: Mapping[str, keras.Variable],
    values: Mapping[str, np.ndarray],
    plan: Plan,
) -> None:
    """Check that the file's head weights do not change the model's other adapters.

    Raises:
        ValueError: If the weights differ from the model's and it has other adapters.
    """
    others = [] if plan.trained else list(attached(model))
    changed = [
        key
        for key, variable in own.items()
        if others and not np.array_equal(_keras.value(variable), values[key])
    ]
    if changed:
        raise ValueError(
            f"The adapter has pairs in the head, on weights {changed[:5]} that differ "
            f"in the file and in {model.name!r}. Loading the file would replace the "
            f"model's weights, which its adapters {others} need. Load the file into a "
            "model without other adapters."
        )


def _check_head(
    model: keras.Layer,
    file: TensorFile,
    wanted: Set[str],
    weights: Mapping[str, keras.Variable],
) -> None:
    """Check that the head in a file, if there is one, fits the model's head.

    Raises:
        ValueError: If the heads differ.
    """
    if not any(key.startswith(HEAD) for key in wanted):
        return
    for key, variable in weights.items():
        if key.startswith(HEAD) and (variable.trainable or key in wanted):
            try:
                file.expect(key, variable.shape, variable.dtype)
            except ValueError as problem:
                raise ValueError(
                    f"The head in the file does not fit {model.name!r}: {problem}"
                    f"{LEAVE_OUT}"
                ) from problem
