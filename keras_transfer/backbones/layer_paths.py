"""Where the layers of a model are: one path each."""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator

import keras

from keras_transfer import _keras


def located(model: keras.Layer) -> dict[str, keras.Layer]:
    """Return `model` (under the path "") and each layer below it by its path.

    A path is the names from `model`, not included, down to the layer, as in
    `kt.layer_groups(model, patterns=...)`. Where two layers have the same path the
    later ones end in `#2`, `#3`.
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
    """Yield path and layer for `layer`, which is at `path`, and for each below it.

    What is in `seen` (ids) is left out, and what is yielded is put into it. `below`
    returns the children of a layer; by default it is `children`.
    """
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield path, layer
    for child in (below or children)(layer):
        yield from walk(child, joined(path, child.name), seen, below)


def joined(path: str, name: str) -> str:
    """Return the path of what is called `name` in the layer at `path`."""
    return f"{path}/{name}" if path else name


def numbered(
    model: keras.Layer, class_of: Callable[[keras.Layer], type]
) -> dict[str, keras.Layer]:
    """Return what `located` does, by paths that are the same in each process.

    Names that Keras numbers by itself, such as `dense_7`, are numbered anew in each
    layer: Keras counts all that a process has ever made. So are those that begin with
    such a name of a layer above. Files hold such paths.

    Args:
        model: A model or layer.
        class_of: What returns the class that a layer has its name from.
    """
    layers, seen = {"": model}, {id(model)}
    own = snake_case(class_of(model).__name__)
    automatic = re.fullmatch(rf"{own}(_\d+)?", model.name)
    above_names = ((model.name, own),) if automatic else ()
    _number(model, "", class_of, layers, seen, above_names)
    return layers


def weights_of(layer: keras.Layer) -> dict[str, keras.Variable]:
    """Return the weights that `layer` holds itself by name, repeated ones numbered."""
    found: dict[str, keras.Variable] = {}
    for variable in _keras.own_weights(layer):
        found[free(variable.name, found)] = variable
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


def renumbered(name: str, counts: dict[str, int]) -> str:
    """Return the name that Keras gives to the next one in a fresh process."""
    number = counts[name] = counts.get(name, -1) + 1
    return f"{name}_{number}" if number else name


def snake_case(name: str) -> str:
    """Return the name that Keras gives to the first layer of a class."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def free(name: str, taken: dict) -> str:
    """Return `name`, with the next number after it if `taken` has it already."""
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
    """Return a name that begins with that of a layer above, with its new number."""
    for before, now in reversed(above_names):
        if name.startswith(f"{before}_"):
            return now + name.removeprefix(before)
    return name
