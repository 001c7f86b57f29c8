"""The variables of many adapters by name, and the manifest that describes them."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_transfer.adapters.own_layer import own_name
from keras_transfer.export.manifest import host_config
from keras_transfer.export.manifest import LABELS
from keras_transfer.export.manifest import Manifest
from keras_transfer.export.manifest import NAMES
from keras_transfer.export.manifest import OwnPlace
from keras_transfer.export.manifest import PairPlace
from keras_transfer.export.own_heads import OwnHeads
from keras_transfer.export.stacked_pairs import StackedPairs
from keras_transfer.saving.base_model import backbone_of
from keras_transfer.saving.base_model import fingerprint
from keras_transfer.saving.base_model import keys_of
from keras_transfer.saving.base_model import places_of


def variables_of(
    known: tf.Variable,
    labels: tf.Variable | None,
    stacks: Sequence[StackedPairs],
    heads: Sequence[OwnHeads],
) -> dict[str, tf.Variable]:
    """Return the variables that change with the adapters, by name.

    Args:
        known: The names of the adapters.
        labels: The class names of each adapter, or None.
        stacks: The pairs at each layer.
        heads: The layers of which adapters have their own copy.
    """
    found = {NAMES: known}
    if labels is not None:
        found[LABELS] = labels
    for number, stack in enumerate(stacks):
        found |= {f"pair_{number}_{k}": v for k, v in stack.variables.items()}
    for number, each in enumerate(heads):
        found |= {f"own_{number}_{k}": v for k, v in each.variables.items()}
        weights = enumerate(each.stacks.values())
        found |= {f"own_{number}_weight_{place}": stack for place, stack in weights}
    return found


def manifest_of(
    model: keras.Model, stacks: Sequence[StackedPairs], heads: Sequence[OwnHeads]
) -> Manifest:
    """Return the manifest, in which layers have their paths in adapter files.

    Layers that are neither in the backbone nor in the head have no such path, and are
    left out. No adapter file has weights for them.

    Args:
        model: The model.
        stacks: As in `variables_of`.
        heads: As in `variables_of`.
    """
    places = places_of(model)
    at = {id(layer): place for place, layer in places.items()}
    pairs = [
        PairPlace(at[id(stack.host)], f"pair_{number}_", host_config(stack.host))
        for number, stack in enumerate(stacks)
        if id(stack.host) in at
    ]
    own = []
    for number, each in enumerate(heads):
        keys = {own_name(k): key for k, key in keys_of(each.host, places).items()}
        if each.stacks and set(keys) == set(each.stacks):
            weights = {
                keys[name]: f"own_{number}_weight_{place}"
                for place, name in enumerate(each.stacks)
            }
            units = each.host.units if each.last else None
            own.append(OwnPlace(weights, f"own_{number}_", units, each.widest))
    return Manifest(fingerprint(backbone_of(model)), pairs, own)
