"""The layers that an adapter owns and trains: the head, or the layers in `train`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Sequence

import keras

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.in_place.layer_state import first_state
from keras_transfer.adapters.own_layer import layers_of
from keras_transfer.adapters.own_layer import own_name
from keras_transfer.adapters.own_layer import OwnLayer
from keras_transfer.adapters.own_layer import weights_below
from keras_transfer.adapters.targets import head_layers
from keras_transfer.adapters.targets import nearest
from keras_transfer.adapters.targets import Target
from keras_transfer.adapters.unserved import reasons_of
from keras_transfer.backbones.layer_paths import located

HEAD = "head"  # the name of the group of `kt.layer_groups`


def own_layers(
    model: keras.Layer, train: object, hosts: Iterable[Target]
) -> tuple[list[tuple[Target, OwnLayer]], list[keras.Layer]]:
    """Return two lists: layers that an adapter owns, and layers that train in place.

    Each owned layer comes with a part that has no weights yet. A layer of the head
    trains in place if another layer reads one of its weights, because then no adapter
    can own the layer.

    Args:
        model: A built model.
        train: As in `Adapter.attach`.
        hosts: The layers that get a part of the technique.

    Raises:
        TypeError: If `train` has another type.
        ValueError: If a name matches no layer that can train, or matches a host.
    """
    taken = {id(target.layer) for target in hosts}
    choices = [
        target
        for target in ownable(model)
        if train is not None or not _below(target.layer) & taken
    ]
    chosen = _head(model, choices) if train is None else _named(model, train, choices)
    chosen, in_place = _served(model, chosen, named=train is not None)
    for target in chosen:
        if _below(target.layer) & taken:
            raise ValueError(
                f"The layer {target.path!r} is both a target of the adapter and in "
                f"train={train!r}. A layer that trains in full needs no adapter. "
                "Remove the layer from `targets` or from `train`."
            )
        quantized = getattr(target.layer, "quantization_mode", None) is not None
        if train is not None and quantized:
            raise ValueError(
                f"The layer {target.path!r} is quantized "
                f"({target.layer.quantization_mode}), so it cannot train in full. "
                "Leave it out of `train`."
            )
    owned = [(target, own_layer(target.layer, train is None)) for target in chosen]
    return owned, in_place


def own_layer(layer: keras.Layer, as_now: bool = False) -> OwnLayer:
    """Return the part with which an adapter owns `layer`, without weights yet.

    Args:
        layer: The layer.
        as_now: Whether weights that were frozen before adapters were attached stay
            frozen in the part. Defaults to False.
    """
    learning = {id(variable) for variable in _learning(layer, as_now)}
    below = weights_below(layer).items()
    return OwnLayer([own_name(key) for key, v in below if id(v) not in learning])


def ownable(model: keras.Layer) -> list[Target]:
    """Return the layers of `model` that have weights which can train."""
    ours = {id(x) for _, part in all_parts(model) for x in _keras.flat_layers(part)}
    found, seen = [], set(ours)
    for path, layer in located(model).items():
        if id(layer) not in seen and _learning(layer, as_now=False):
            found.append(Target(layer, path or layer.name))
            seen |= _below(layer)
    return found


def _head(model: keras.Layer, choices: Sequence[Target]) -> list[Target]:
    """Return the layers of the head that have trainable weights now."""
    head = {id(layer) for layer in head_layers(model)}
    return [
        target
        for target in choices
        if _below(target.layer) & head and _learning(target.layer, as_now=True)
    ]


def _named(
    model: keras.Layer, train: object, choices: Sequence[Target]
) -> list[Target]:
    train = [train] if isinstance(train, str | keras.Layer) else train
    if not isinstance(train, Sequence | set | frozenset):
        raise TypeError(
            f"train={train!r} must be None or a list that contains regular expressions "
            f"over the paths of layers, layers, or {HEAD!r}."
        )
    chosen: set[int] = set()
    for wanted in train:
        chosen |= {id(target.layer) for target in _matched(model, wanted, choices)}
    return [target for target in choices if id(target.layer) in chosen]


def _matched(
    model: keras.Layer, wanted: object, choices: Sequence[Target]
) -> list[Target]:
    paths = [target.path for target in choices]
    if isinstance(wanted, keras.Layer):
        found = [target for target in choices if target.layer is wanted]
        name = wanted.name
    elif isinstance(wanted, str) and wanted == HEAD:
        head = {id(layer) for layer in head_layers(model)}
        found = [target for target in choices if _below(target.layer) & head]
        name = HEAD
    elif isinstance(wanted, str):
        name = wanted
        try:
            found = [x for x in choices if re.search(wanted, x.path)]
        except re.error as problem:
            raise ValueError(
                f"train contains {wanted!r}, which is not a regular expression: "
                f"{problem}. Escape special characters with a backslash."
            ) from problem
    else:
        raise TypeError(
            f"train contains {wanted!r}, which is not a string or a layer. Give "
            f"regular expressions over paths, layers, or {HEAD!r}."
        )
    if not found:
        what = "The model has no head." if name == HEAD else nearest(name, paths)
        raise ValueError(
            f"train contains {name!r}, which matches no layer of {model.name!r} with "
            f"weights that can train. {what}"
        )
    return found


def _served(
    model: keras.Layer, chosen: list[Target], *, named: bool
) -> tuple[list[Target], list[keras.Layer]]:
    """Return the layers that an adapter can own, and those that have to train in place.

    A layer trains in place if another layer reads one of its weights. Layers that never
    run are left out. The layers in the graph of a functional model always run.

    Raises:
        ValueError: If the user named a layer that never runs, or whose weights another
            layer reads.
    """
    called = {
        id(layer)
        for each in _keras.flat_layers(model)
        if isinstance(each, keras.Model) and getattr(each, "inputs", None)
        for layer in each.layers
    }
    asked = {
        target.layer: OwnLayer
        for target in chosen
        if id(target.layer) not in called and _keras.own_weights(target.layer)
    }
    reasons = reasons_of(model, asked) if asked else {}
    reasons |= _shared(model, chosen)
    for target in chosen:
        reason = reasons.get(target.layer)
        if reason and named:
            raise ValueError(
                f"No adapter can own the layer {target.path!r}: {reason}. Leave it out "
                "of `train`. Without `train`, a layer of the head whose weights "
                "another layer reads trains in place."
            )
    served = [target for target in chosen if target.layer not in reasons]
    return served, [x for x, reason in reasons.items() if "reads" in reason]


def _shared(model: keras.Layer, chosen: list[Target]) -> dict[keras.Layer, str]:
    """Return a dict from each layer that shares a weight with another to the reason.

    For example, a SpectralNormalization shares the kernel of its layer.
    """
    holders: dict[int, list[keras.Layer]] = {}
    for layer in _keras.flat_layers(model):
        for variable in _keras.own_weights(layer):
            holders.setdefault(id(variable), []).append(layer)
    found = {}
    for target in chosen:
        below = _below(target.layer)
        for variable in weights_below(target.layer).values():
            for other in holders[id(variable)]:
                if id(other) not in below:
                    reason = f"{other.name!r} shares and reads its {variable.name!r}"
                    found[target.layer] = reason
    return found


def _learning(layer: keras.Layer, as_now: bool) -> list[keras.Variable]:
    """Return the weights of `layer` that can train; with `as_now` those that do train.

    For a layer that adapters froze, `as_now` refers to the state before that.
    """
    found = []
    for each in layers_of(layer).values():
        first = first_state(each)
        able = first.learnable if first else _keras.learnable(each)
        flags = {id(v): flag for v, flag in first.flags} if first else {}
        found += [v for v in able if not as_now or flags.get(id(v), v.trainable)]
    return found


def _below(layer: keras.Layer) -> set[int]:
    return {id(each) for each in layers_of(layer).values()}
