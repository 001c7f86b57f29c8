"""Paths of the layers of a model."""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator

import keras

from keras_transfer import _keras


def located(model: keras.Layer) -> dict[str, keras.Layer]:
    """Return `model` (with the path "") and each layer below it by its path.

    A path joins the names of the layers below `model` down to the layer, as in
    `kt.layer_groups(model, patterns=...)`. If several layers have the same path, the
    paths of the second, third and later ones end in `#2`, `#3` and so on.
    """
    layers: dict[str, keras.Layer] = {}
    for path, layer in walk(model, "", set()):
        layers[free(path, layers)] = layer
    return layers


def walk(
    layer: keras.Layer,
    path: str,
    seen: set[int],
    below: Callable[[keras.Layer], Iterable[keras.Layer]] | None = None,
) -> Iterator[tuple[str, keras.Layer]]:
    """Yield path and layer for `layer`, which is at `path`, and for each layer below.

    Layers in `seen` (a set of ids) are left out, and yielded layers are added to it.
    `below` returns the children of a layer. Defaults to `children`.
    """
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield path, layer
    for child in (below or children)(layer):
        yield from walk(child, joined(path, child.name), seen, below)


def joined(path: str, name: str) -> str:
    """Return the path of the child `name` of the layer at `path`."""
    return f"{path}/{name}" if path else name


def numbered(
    model: keras.Layer, class_of: Callable[[keras.Layer], type]
) -> dict[str, keras.Layer]:
    """Return the layers of `located` by paths that are the same in each process.

    Default names with numbers, such as `dense_7`, get new numbers within each parent,
    because Keras counts all layers of a process. Names that begin with the default
    name of a layer above get its new number too. Files contain these paths.

    Args:
        model: A model or layer.
        class_of: Function that returns the class from which a layer got its name.
    """
    layers, seen = {"": model}, {id(model)}
    own = snake_case(class_of(model).__name__)
    automatic = re.fullmatch(rf"{own}(_\d+)?", model.name)
    above_names = ((model.name, own),) if automatic else ()
    _number(model, "", class_of, layers, seen, above_names)
    return layers


def weights_of(layer: keras.Layer) -> dict[str, keras.Variable]:
    """Return the weights of `layer`, without its children, by unique names."""
    weights: dict[str, keras.Variable] = {}
    for variable in _keras.own_weights(layer):
        weights[free(variable.name, weights)] = variable
    return weights


def owners(
    model: keras.Layer, variables: Iterable[keras.Variable]
) -> list[keras.Layer]:
    """Return the layers of `model` that own any of `variables` directly."""
    chosen = {id(variable) for variable in variables}
    return [
        layer
        for layer in _keras.flat_layers(model)
        if any(id(weight) in chosen for weight in _keras.own_weights(layer))
    ]


def above(model: keras.Layer, chosen: set[int]) -> list[keras.Layer]:
    """Return all layers of `model` with a layer of `chosen` (ids) below them."""
    layers: list[keras.Layer] = []
    _above(model, chosen, {}, layers)
    return layers


def _above(
    layer: keras.Layer, chosen: set[int], results: dict[int, bool], layers: list
) -> bool:
    if id(layer) not in results:
        results[id(layer)] = False
        below = [_above(child, chosen, results, layers) for child in children(layer)]
        if any(below):
            layers.append(layer)
        results[id(layer)] = any(below) or id(layer) in chosen
    return results[id(layer)]


def children(layer: keras.Layer) -> list[keras.Layer]:
    """Return each direct child once, the children of a functional in graph order."""
    in_graph = list(layer.layers) if isinstance(layer, keras.Model) else []
    return list(
        {id(child): child for child in [*in_graph, *_keras.sublayers(layer)]}.values()
    )


def renumbered(name: str, counts: dict[str, int]) -> str:
    """Return the name that a new process of Keras gives to the next layer."""
    number = counts[name] = counts.get(name, -1) + 1
    return f"{name}_{number}" if number else name


def snake_case(name: str) -> str:
    """Return the name that Keras gives to the first layer of a class."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def free(name: str, taken: dict) -> str:
    """Return `name`, with the next number at the end if it is already in `taken`."""
    count, free = 1, name
    while free in taken:
        count += 1
        free = f"{name}#{count}"
    return free


def _number(
    layer: keras.Layer,
    path: str,
    class_of: Callable,
    layers: dict[str, keras.Layer],
    seen: set[int],
    above_names: tuple[tuple[str, str], ...],
) -> None:
    counts: dict[str, int] = {}
    for child in children(layer):
        own = snake_case(class_of(child).__name__)
        names = above_names
        if re.fullmatch(rf"{own}(_\d+)?", child.name):
            name = renumbered(own, counts)
            names += ((child.name, name),)
        else:
            name = _named_after(child.name, above_names)
        if id(child) in seen:
            continue
        seen.add(id(child))
        place = free(joined(path, name), layers)
        layers[place] = child
        _number(child, place, class_of, layers, seen, names)


def _named_after(name: str, above_names: tuple[tuple[str, str], ...]) -> str:
    """Return `name`, with the new name of a layer above if it begins with the old."""
    for before, now in reversed(above_names):
        if name.startswith(f"{before}_"):
            return now + name.removeprefix(before)
    return name
