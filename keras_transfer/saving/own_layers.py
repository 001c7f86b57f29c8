"""The adapter's own layers in a file, such as its head, and their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set

import keras

from keras_transfer import _keras
from keras_transfer.adapters.own_layer import own_name
from keras_transfer.adapters.own_layer import OwnLayer
from keras_transfer.adapters.own_layer import weights_below
from keras_transfer.adapters.plan import Plan
from keras_transfer.adapters.targets import head_layers
from keras_transfer.adapters.targets import Target
from keras_transfer.adapters.trained_layers import own_layer
from keras_transfer.adapters.trained_layers import ownable
from keras_transfer.saving.base_model import HEAD
from keras_transfer.saving.base_model import keys_of
from keras_transfer.saving.tensor_file import TensorFile

# The end of an error about a head that does not fit.
LEAVE_OUT = " Pass head=False to load the adapter alone."


def layers_in(
    model: keras.Layer,
    file: TensorFile,
    plan: Plan,
    wanted: Set[str],
    places: Mapping[str, keras.Layer],
) -> tuple[list[tuple[Target, OwnLayer]], dict[str, tuple[str, str]]]:
    """Return the own layers of the adapter in a file, and their tensors.

    Args:
        model: The model.
        file: The file.
        plan: The plan of the adapter, whose own layers begin as copies of the model's.
        wanted: Names of the tensors to load.
        places: The layers by their paths in files.

    Returns:
        A list of layers with their parts, as in a plan. And a dict of a tensor's name
        to the path of its layer and the name of the weight. The own layers are the
        layers in the file and the own layers of the plan.

    Raises:
        ValueError: If the file lacks a weight of a layer, or has another shape, or if
            its head lacks a layer of the plan.
    """
    hosts = {id(target.layer) for target, _ in plan.pairs}
    hosts |= {id(layer) for layer in plan.in_place}
    owned, keys = [], {}
    for target in ownable(model):
        named = keys_of(target.layer, places)
        found = wanted & set(named.values())
        if not found or id(target.layer) in hosts:
            continue
        part = own_layer(target.layer)
        part.units = _units(model, file, target.layer, named)
        for own, variable in weights_below(target.layer).items():
            _expect(file, named[own], part.shape(variable), variable.dtype, model)
            keys[named[own]] = target.path, own_name(own)
        owned.append((target, part))
    has_head = any(key.startswith(HEAD) for key in wanted)
    mine = {id(target.layer) for target, _ in owned}
    for target, part in plan.owned:
        if id(target.layer) in mine:
            continue
        if has_head:  # the head in the file must also have this layer
            named = keys_of(target.layer, places)
            for own, variable in weights_below(target.layer).items():
                _expect(file, named[own], variable.shape, variable.dtype, model)
        owned.append((target, part))
    return owned, keys


def is_last(model: keras.Layer, layer: keras.Layer) -> bool:
    """Return whether a layer is an output of the model or the last head layer."""
    head = head_layers(model)
    outputs = getattr(model, "outputs", None) or []
    ends = [_keras.source(tensor)[0] for tensor in outputs]
    return layer in ends or bool(head) and head[-1] is layer


def _units(
    model: keras.Layer,
    file: TensorFile,
    layer: keras.Layer,
    named: Mapping[str, str],
) -> int | None:
    """Return the number of outputs that a last Dense has in the file, if it differs."""
    spec = file.specs.get(named.get("kernel", ""))
    if (
        spec is None
        or not isinstance(layer, keras.layers.Dense)
        or len(spec.shape) != 2
        or spec.shape[-1] == layer.units
        or not is_last(model, layer)
    ):
        return None
    return spec.shape[-1]


def _expect(
    file: TensorFile, key: str, shape: tuple, dtype: str, model: keras.Layer
) -> None:
    try:
        file.expect(key, shape, dtype)
    except ValueError as problem:
        if not key.startswith(HEAD):
            raise
        raise ValueError(
            f"The head in the file does not fit {model.name!r}: {problem}{LEAVE_OUT}"
        ) from problem
