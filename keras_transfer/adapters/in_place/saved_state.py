"""The state of a layer with adapters in a file, in addition to its base's config."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from collections.abc import Mapping

import keras

from keras_transfer import _keras
from keras_transfer.adapters import adapter_part as parts
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.in_place.frozen_weights import freeze
from keras_transfer.adapters.in_place.layer_state import base_of
from keras_transfer.adapters.in_place.layer_state import first_state
from keras_transfer.adapters.in_place.layer_state import LayerState
from keras_transfer.adapters.in_place.layer_state import set_first_state
from keras_transfer.backbones.addresses import addressed
from keras_transfer.backbones.addresses import addressed_weights
from keras_transfer.backbones.addresses import are_by_names
from keras_transfer.backbones.layer_paths import located
from keras_transfer.backbones.layer_paths import weights_of

# The keys that the state adds to the config.
KEYS = ("addresses", "parts", "before", "learning")
# Files with the key "addresses" address layers by attributes. Older files have paths of
# names, which only the first build in a process is sure to reproduce.
BY_ATTRIBUTE = "attributes"


def state_of(layer: keras.Layer) -> dict:
    """Return the parts in and below `layer` and its frozen weights, by address."""
    form = {} if are_by_names() else {"addresses": BY_ATTRIBUTE}
    places, names = _places(layer, form), _naming(form)
    return form | {
        "parts": [
            [place, keras.saving.serialize_keras_object(part)]
            for place, each in places.items()
            for part in parts.parts_of(each)
        ],
        "before": {
            place: _first_config(each, names(each))
            for place, each in places.items()
            if first_state(each)
        },
        "learning": {
            "layers": [place for place, each in places.items() if each.trainable],
            "weights": {
                place: learning
                for place, each in places.items()
                if (learning := [k for k, v in names(each).items() if v.trainable])
            },
        },
    }


def made_again(layer: keras.Layer, state: Mapping) -> list[tuple[keras.Layer, Part]]:
    """Create the parts of a saved state that `layer` lacks; return them with hosts.

    An inner layer can already have its parts.

    Raises:
        ValueError: If `layer` lacks a host of the saved state.
    """
    places = _places(layer, state)
    made = []
    for place, config in state["parts"]:
        if place not in places:
            raise ValueError(
                f"The layer {layer.name!r} was saved with an adapter at {place!r}, but "
                f"it only has the layers {sorted(places)}. Its class has changed since "
                "it was saved. Load the file with the class as it was."
            )
        part = keras.saving.deserialize_keras_object(config)
        host = places[place]
        if part.name not in {each.name for each in parts.parts_of(host)}:
            part.create(host)
            made.append((host, part))
    return made


def set_trainable(layer: keras.Layer, state: Mapping) -> list[keras.Layer]:
    """Give the layers and weights in `layer` the trainable flags of the saved layer.

    Layers are found by address, and weights by name.

    Returns:
        The layers that have to be upgraded, see `freeze`.
    """
    places, names = _places(layer, state), _naming(state)
    flagged, free = set(state["learning"]["layers"]), state["learning"]["weights"]
    trainable: set[int] = set()
    upgraded = []
    for place, each in places.items():
        own = names(each)
        chosen = [own[name] for name in free.get(place, ()) if name in own]
        trainable |= {id(variable) for variable in chosen}
        if place in state["before"]:
            _set_first(each, own, *state["before"][place])
            if freeze(each, chosen):
                upgraded.append(each)
    at = {id(each): place for place, each in places.items()}
    layers = [at.get(id(each)) in flagged for each in _keras.flat_layers(layer)]
    _keras.set_flags(layer, layers, [id(v) in trainable for v in layer.weights])
    return upgraded


def _places(layer: keras.Layer, state: Mapping) -> dict[str, keras.Layer]:
    by_attribute = state.get("addresses") == BY_ATTRIBUTE
    return addressed(layer) if by_attribute else located(layer)


def _naming(
    state: Mapping,
) -> Callable[[keras.Layer], dict[str, keras.Variable]]:
    by_attribute = state.get("addresses") == BY_ATTRIBUTE
    return addressed_weights if by_attribute else weights_of


def _first_config(layer: keras.Layer, own: Mapping[str, keras.Variable]) -> list:
    first = first_state(layer)
    flags = {id(variable): flag for variable, flag in first.flags}
    names = {id(v): name for name, v in own.items()}
    return [first.trainable, {names[id(v)]: flags[id(v)] for v in first.learnable}]


def _set_first(
    layer: keras.Layer,
    own: Mapping[str, keras.Variable],
    trainable: bool,
    flags: Mapping[str, bool],
) -> None:
    """Set the first state from the saved one."""
    state = LayerState(
        layer=weakref.ref(layer),
        kind=base_of(layer),
        learnable=tuple(own[name] for name in flags),
        trainable=trainable,
        flags=tuple((own[name], flag) for name, flag in flags.items()),
    )
    set_first_state(layer, state)
