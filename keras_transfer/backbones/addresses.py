"""Addresses of layers and weights in files, equal for each build of a model."""

from __future__ import annotations

import contextlib
import contextvars
import re
from collections.abc import Iterator

import keras

from keras_transfer import _keras
from keras_transfer.backbones.layer_paths import children
from keras_transfer.backbones.layer_paths import free
from keras_transfer.backbones.layer_paths import joined
from keras_transfer.backbones.layer_paths import renumbered
from keras_transfer.backbones.layer_paths import snake_case
from keras_transfer.backbones.layer_paths import weights_of

# Address of the ordered layers of a functional model or a Sequential.
GRAPH = "layers"

_by_names = contextvars.ContextVar("_by_names", default=False)


def addressed(model: keras.Layer) -> dict[str, keras.Layer]:
    """Return `model` (with the address "") and each layer below it by its address.

    An address does not use layer names, because Keras numbers them over all layers of
    a process. Like Keras's own weight files, it uses the attribute of each layer, such
    as `encoder/blocks/0/query`. In a functional model or a Sequential it uses the
    classes in graph order, such as `layers/dense_1`. Two builds of a model therefore
    have the same addresses, in one process or in two.
    """
    layers, seen = {"": model}, {id(model)}
    _add_below(model, "", layers, seen)
    return layers


def addressed_weights(layer: keras.Layer) -> dict[str, keras.Variable]:
    """Return the weights of `layer` itself, by names that are equal in each build.

    Weights without a name get new numbers. The order of the layer's list of weights
    does not matter, because adapters change it.
    """
    counts: dict[str, int] = {}
    weights = {}
    for name, variable in sorted(weights_of(layer).items(), key=_order):
        unnamed = re.fullmatch(r"variable(_\d+)?", name)
        weights[renumbered("variable", counts) if unnamed else name] = variable
    return weights


@contextlib.contextmanager
def by_names() -> Iterator[None]:
    """Within the block, configs contain paths of names instead of addresses.

    The first version wrote these paths, and fingerprints of networks still use them.
    """
    token = _by_names.set(True)
    try:
        yield
    finally:
        _by_names.reset(token)


def are_by_names() -> bool:
    """Return whether this code runs in a block of `by_names`."""
    return _by_names.get()


def _add_below(
    layer: keras.Layer, address: str, layers: dict[str, keras.Layer], seen: set[int]
) -> None:
    for label, child in _labeled_children(layer):
        if id(child) not in seen:
            seen.add(id(child))
            place = free(joined(address, label), layers)
            layers[place] = child
            _add_below(child, place, layers, seen)


def _labeled_children(layer: keras.Layer) -> Iterator[tuple[str, keras.Layer]]:
    """Yield the direct children of `layer`, each with its part of the address."""
    below = {id(child): child for child in children(layer)}
    if _keras.has_graph(layer):
        for label, child in _by_class(layer.layers):
            if below.pop(id(child), None) is not None:
                yield joined(GRAPH, label), child
    for name, value in _keras.attributes(layer):
        for label, child in _inside(name, value):
            if below.pop(id(child), None) is not None:
                yield label, child
    yield from _by_class(below.values())


def _inside(label: str, value: object) -> Iterator[tuple[str, keras.Layer]]:
    """Yield the value of an attribute if it is a layer, or the layers it contains."""
    if isinstance(value, keras.Layer):
        yield label, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _inside(f"{label}/{key}", item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _inside(f"{label}/{index}", item)


def _by_class(layers: list[keras.Layer]) -> Iterator[tuple[str, keras.Layer]]:
    counts: dict[str, int] = {}
    for layer in layers:
        yield renumbered(snake_case(type(layer).__name__), counts), layer


def _order(item: tuple[str, keras.Variable]) -> tuple[str, int]:
    stem, _, number = item[0].rpartition("_")
    return (stem, int(number)) if number.isdecimal() else (item[0], 0)
