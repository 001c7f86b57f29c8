"""Where the layers of a model are: one path each, written as in layer groups."""

from __future__ import annotations

from collections.abc import Iterable

import keras

from keras_transfer import _keras


def located(model: keras.Layer) -> dict[str, keras.Layer]:
    """Return `model` (under the path "") and each layer below it by its path.

    A path is the names from `model`, not included, down to the layer, as in
    `kt.layer_groups(model, patterns=...)`. Where two layers have the same path the
    later ones end in `#2`, `#3`.
    """
    found: dict[str, keras.Layer] = {}
    _locate(model, "", found, set())
    return found


def weights_of(layer: keras.Layer) -> dict[str, keras.Variable]:
    """Return the weights that `layer` holds itself by name, repeated ones numbered."""
    found: dict[str, keras.Variable] = {}
    for variable in _keras.own_weights(layer):
        found[_free(variable.name, found)] = variable
    return found


def owners(
    model: keras.Layer, variables: Iterable[keras.Variable]
) -> list[keras.Layer]:
    """Return the layers of `model` that hold any of `variables` themselves."""
    chosen = {id(variable) for variable in variables}
    return [
        layer
        for layer in _keras.flat_layers(model)
        if any(id(weight) in chosen for weight in _keras.own_weights(layer))
    ]


def above(model: keras.Layer, chosen: set[int]) -> list[keras.Layer]:
    """Return all layers of `model` that have one of `chosen` (ids) below them."""
    found: list[keras.Layer] = []
    _above(model, chosen, {}, found)
    return found


def _locate(layer: keras.Layer, path: str, found: dict, seen: set[int]) -> None:
    if id(layer) in seen:
        return
    seen.add(id(layer))
    found[_free(path, found)] = layer
    for child in children(layer):
        _locate(child, f"{path}/{child.name}" if path else child.name, found, seen)


def _above(
    layer: keras.Layer, chosen: set[int], known: dict[int, bool], found: list
) -> bool:
    if id(layer) not in known:
        known[id(layer)] = False
        below = [_above(child, chosen, known, found) for child in children(layer)]
        if any(below):
            found.append(layer)
        known[id(layer)] = any(below) or id(layer) in chosen
    return known[id(layer)]


def children(layer: keras.Layer) -> list[keras.Layer]:
    """Return the direct children once each, those of a functional in graph order."""
    shown = list(layer.layers) if isinstance(layer, keras.Model) else []
    return list(
        {id(each): each for each in [*shown, *_keras.sublayers(layer)]}.values()
    )


def _free(name: str, taken: dict) -> str:
    count, free = 1, name
    while free in taken:
        count += 1
        free = f"{name}#{count}"
    return free
