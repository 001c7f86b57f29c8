"""Addresses of layers and weights that each build of a model has, for files."""

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

# Where the layers of a functional model or a Sequential are, which have an order.
GRAPH = "layers"

_by_names = contextvars.ContextVar("_by_names", default=False)


def addressed(model: keras.Layer) -> dict[str, keras.Layer]:
    """Return `model` (under the address "") and each layer below it by its address.

    An address has no names of layers, which Keras may count over all that a process
    has ever made, but what Keras's own weight files go by: the attributes that hold a
    layer, such as `encoder/blocks/0/query`, and in a functional model or a Sequential
    the classes in the order of the graph, such as `layers/dense_1`. So a second build
    in one process, and a build in another, have the same addresses.
    """
    layers, seen = {"": model}, {id(model)}
    _add_below(model, "", layers, seen)
    return layers


def addressed_weights(layer: keras.Layer) -> dict[str, keras.Variable]:
    """Return the weights that `layer` holds itself, by names that each build has.

    Those without a name are numbered anew. The order in the layer's list does not
    count, since adapters change that.
    """
    counts: dict[str, int] = {}
    found = {}
    for name, variable in sorted(weights_of(layer).items(), key=_order):
        unnamed = re.fullmatch(r"variable(_\d+)?", name)
        found[renumbered("variable", counts) if unnamed else name] = variable
    return found


@contextlib.contextmanager
def by_names() -> Iterator[None]:
    """Within the block configs have paths of names in place of addresses.

    As those of the first version, by which fingerprints of networks are taken.
    """
    token = _by_names.set(True)
    try:
        yield
    finally:
        _by_names.reset(token)


def are_by_names() -> bool:
    """Return whether the code runs in a block of `by_names`."""
    return _by_names.get()


def _add_below(
    layer: keras.Layer, address: str, layers: dict[str, keras.Layer], seen: set[int]
) -> None:
    for label, child in _held(layer):
        if id(child) not in seen:
            seen.add(id(child))
            place = free(joined(address, label), layers)
            layers[place] = child
            _add_below(child, place, layers, seen)


def _held(layer: keras.Layer) -> Iterator[tuple[str, keras.Layer]]:
    """Yield the direct children of `layer`, each with what distinguishes it there."""
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
    """Yield the layers in the value of an attribute: itself, or a container's."""
    if isinstance(value, keras.Layer):
        yield label, value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _inside(f"{label}/{key}", each)
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _inside(f"{label}/{index}", each)


def _by_class(layers: list[keras.Layer]) -> Iterator[tuple[str, keras.Layer]]:
    counts: dict[str, int] = {}
    for layer in layers:
        yield renumbered(snake_case(type(layer).__name__), counts), layer


def _order(item: tuple[str, keras.Variable]) -> tuple[str, int]:
    stem, _, number = item[0].rpartition("_")
    return (stem, int(number)) if number.isdecimal() else (item[0], 0)
