"""What of a model learns: the flags of layers and variables, set and read together."""

from collections.abc import Iterable

import keras

from keras_transfer import _keras


def train_only(
    model: keras.Model,
    variables: Iterable[keras.Variable],
    layers: Iterable[keras.Layer] | None = None,
) -> None:
    """Make exactly those of `variables` learn that can, and freeze the rest.

    A layer is frozen if nothing in or below it learns. One that holds statistics
    alone follows `layers`, those that learn; without `layers` it stays as it is.
    """
    able = {id(v) for each in _keras.flat_layers(model) for v in _keras.learnable(each)}
    learning = {id(variable) for variable in variables} & able
    chosen = None if layers is None else {id(layer) for layer in layers}
    for layer in _keras.flat_layers(model):
        weights = {id(weight) for weight in layer.weights}
        # Not by the setter, which would hand the flag down to all below.
        if weights & able:
            _keras.set_flag(layer, bool(weights & learning))
        elif weights and chosen is not None:
            _keras.set_flag(layer, id(layer) in chosen)
    for weight in model.weights:
        weight.trainable = id(weight) in learning


def pinned(model: keras.Model) -> set[int]:
    """Return the ids of the variables that are frozen though their layer is not.

    Somebody froze them one by one: the kernels under Keras's LoRA, or in BitFit.
    """
    owners = {}
    for layer in _keras.flat_layers(model):
        for variable in _keras.learnable(layer):
            owners.setdefault(id(variable), []).append(layer)
    frozen = {id(each) for each in model.weights if not each.trainable} & set(owners)
    return {
        each
        for each in frozen
        if all(
            # A parent is not frozen either if only its children learn.
            layer.trainable
            and (
                any(v.trainable for v in _keras.learnable(layer))
                or not _keras.sublayers(layer)
            )
            for layer in owners[each]
        )
    }
