"""Trainable flags: set and read the flags of layers and variables together."""

from collections.abc import Iterable

import keras

from keras_transfer import _keras


def train_only(
    model: keras.Model,
    variables: Iterable[keras.Variable],
    layers: Iterable[keras.Layer] | None = None,
) -> None:
    """Make `variables` trainable, as far as they can train, and freeze all others.

    A layer is frozen if no variable in or below it trains. A layer with only
    statistics is frozen unless it is in `layers`. Without `layers` it is unchanged.
    """
    learnable = {
        id(variable)
        for layer in _keras.flat_layers(model)
        for variable in _keras.learnable(layer)
    }
    training = {id(variable) for variable in variables} & learnable
    chosen = None if layers is None else {id(layer) for layer in layers}
    for layer in _keras.flat_layers(model):
        weights = {id(weight) for weight in layer.weights}
        # The setter of `trainable` would also set the flag of all layers below.
        if weights & learnable:
            _keras.set_flag(layer, bool(weights & training))
        elif weights and chosen is not None:
            _keras.set_flag(layer, id(layer) in chosen)
    for weight in model.weights:
        weight.trainable = id(weight) in training


def pinned(model: keras.Model) -> set[int]:
    """Return the ids of frozen variables in layers that are not frozen.

    These were frozen one by one, such as the kernels in Keras's LoRA or in BitFit.
    """
    owners = {}
    for layer in _keras.flat_layers(model):
        for variable in _keras.learnable(layer):
            owners.setdefault(id(variable), []).append(layer)
    frozen = {id(weight) for weight in model.weights if not weight.trainable}
    return {
        variable_id
        for variable_id in frozen & set(owners)
        if all(
            # A parent has the flag True also if only its children train.
            layer.trainable
            and (
                any(v.trainable for v in _keras.learnable(layer))
                or not _keras.sublayers(layer)
            )
            for layer in owners[variable_id]
        )
    }
