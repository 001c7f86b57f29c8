"""Which layers an adapter owns in full: the head, or what `train` of `attach` names."""

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
    """Return the layers that an adapter is to own, each with a part without weights.

    And those of the head that nobody named and no adapter can have for itself, since
    another layer reads a weight: they train in place.

    Args:
        model: A built model.
        train: As in `Adapter.attach`.
        hosts: The layers that get a part of the technique.

    Raises:
        TypeError: If `train` is nothing of this kind.
        ValueError: If a name matches no layer that can learn, or one of the hosts.
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
                f"train={train!r}. One that is trained in full needs nothing added to "
                "it: narrow one of the two."
            )
        quantized = getattr(target.layer, "quantization_mode", None) is not None
        if train is not None and quantized:
            raise ValueError(
                f"The layer {target.path!r} is quantized "
                f"({target.layer.quantization_mode}), so that it cannot be trained in "
                "full. Leave it out of `train`."
            )
    owned = [(target, own_layer(target.layer, train is None)) for target in chosen]
    return owned, in_place


def own_layer(layer: keras.Layer, as_now: bool = False) -> OwnLayer:
    """Return the part, without weights, by which an adapter owns `layer`.

    Args:
        layer: The layer.
        as_now: Whether weights that do not learn now, or did not before adapters froze
            them, are not to learn in the part.
    """
    learning = {id(variable) for variable in _learning(layer, as_now)}
    below = weights_below(layer).items()
    return OwnLayer([own_name(key) for key, v in below if id(v) not in learning])


def ownable(model: keras.Layer) -> list[Target]:
    """Return the layers of `model` that hold weights which can learn."""
    ours = {id(x) for _, part in all_parts(model) for x in _keras.flat_layers(part)}
    found, seen = [], set(ours)
    for path, layer in located(model).items():
        if id(layer) not in seen and _learning(layer, as_now=False):
            found.append(Target(layer, path or layer.name))
            seen |= _below(layer)
    return found


def _head(model: keras.Layer, choices: Sequence[Target]) -> list[Target]:
    """Return the layers of the head of which something learns now."""
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
            f"train={train!r} is neither None nor a list of regular expressions over "
            f"the paths of layers, or of {HEAD!r}."
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
                f"train has {wanted!r}, which is not a regular expression: {problem}."
            ) from problem
    else:
        raise TypeError(f"train has {wanted!r}, neither a name nor a layer.")
    if not found:
        what = "There is no such group." if name == HEAD else nearest(name, paths)
        raise ValueError(
            f"train has {name!r}, which matches no layer of {model.name!r} with "
            f"weights that can learn. {what}"
        )
    return found


def _served(
    model: keras.Layer, chosen: list[Target], *, named: bool
) -> tuple[list[Target], list[keras.Layer]]:
    """Return the layers that compute, first those of which nobody else reads a weight.

    What stands in the graph of a functional model is called.

    Raises:
        ValueError: If the user named one that never runs, or of which another reads a
            weight.
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
                f"No adapter can have the layer {target.path!r} for itself: {reason}. "
                "Leave it out of `train`. Without `train`, a layer of the head whose "
                "weights another reads trains in place."
            )
    served = [target for target in chosen if target.layer not in reasons]
    return served, [x for x, reason in reasons.items() if "reads" in reason]


def _shared(model: keras.Layer, chosen: list[Target]) -> dict[keras.Layer, str]:
    """Return the layers of which another has a weight too, as spectral norms have."""
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
                    reason = f"{other.name!r} has and reads its {variable.name!r} too"
                    found[target.layer] = reason
    return found


def _learning(layer: keras.Layer, as_now: bool) -> list[keras.Variable]:
    """Return the weights of `layer` that learn as a rule, or that do now.

    Where adapters have frozen it, now is before that.
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
