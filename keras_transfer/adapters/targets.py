"""Find the target layers of a recipe: a family's default, a pattern, or layers."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import keras

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.default_targets import all_linear
from keras_transfer.adapters.default_targets import default_targets
from keras_transfer.adapters.in_place.adapted_layer import plain_of
from keras_transfer.adapters.matrix import Unfit
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.backbones.layer_paths import located
from keras_transfer.backbones.projections import CROSS
from keras_transfer.backbones.projections import is_one
from keras_transfer.backbones.used_weights import unreached_weights
from keras_transfer.quantization.in_place import float_class

# Targets that name no layer. Layers that do not fit the adapter are then left out.
NAMELESS = (None, "all-linear")


@dataclasses.dataclass(frozen=True)
class Target:
    """A layer that a recipe adapts, and its path below the model."""

    layer: keras.Layer
    path: str


def candidates(model: keras.Layer, classes: Iterable[type]) -> list[Target]:
    """Return the layers of `model` that have a class of `classes`, in model order.

    Layers that do not affect the outputs are left out, because they cannot train.
    """
    classes = tuple(classes)
    unused = unreached_weights(model)
    return [
        Target(layer, path or layer.name)
        for path, layer in located(model).items()
        if isinstance(layer, classes)
        and not isinstance(layer, Part)
        and own_call(layer, classes)
        and not _all_in(unused, layer)
    ]


def _all_in(unused: set[int], layer: keras.Layer) -> bool:
    """Return whether a layer has weights and all of them are in `unused`."""
    weights = layer.weights if unused else []
    return bool(weights) and all(id(weight) in unused for weight in weights)


def own_call(layer: keras.Layer, classes: Iterable[type]) -> bool:
    """Return whether `layer` has the `call` of one of `classes`."""
    kind = plain_of(layer)
    calls = {vars(kind).get("call", getattr(kind, "call", None)) for kind in classes}
    return getattr(kind, "call", None) in calls


def find(
    model: keras.Layer, targets: object, classes: Iterable[type], technique: str
) -> list[Target]:
    """Return the targets of a recipe in `model`, at least one.

    Args:
        model: A built model.
        targets: None for the default of the family, `"all-linear"`, a regular
            expression that is searched in the paths, or a list of expressions and
            layers.
        classes: The layer classes that the recipe can adapt.
        technique: Name of the recipe's class.

    Raises:
        TypeError: If `targets` has another type.
        ValueError: If it matches no layer of these classes.
    """
    choices = candidates(model, classes)
    names = ", ".join(sorted(kind.__name__ for kind in classes))
    why = f"{technique} cannot adapt; it adapts {names}"
    if not choices and targets in NAMELESS:
        raise ValueError(
            f"The model {model.name!r} has no layer that {technique} can adapt. "
            f"{technique} adapts {names}."
        )
    if targets is None:
        return default_targets(model, choices, technique)
    return select(model, targets, choices, why)


def fitting(
    targets: Iterable[Target], part: Callable[[Target], Part]
) -> tuple[list[Target], int]:
    """Return the targets for which `part` makes a part, and the number of all others.

    Raises:
        ValueError: If `part` makes no part for any target.
    """
    fit, problems = [], []
    for target in targets:
        try:
            if _keras.own_weights(target.layer):  # without weights it has no sizes yet
                part(target)
        except Unfit as problem:
            problems.append(problem)
        else:
            fit.append(target)
    if problems and not fit:
        raise problems[0]
    return fit, len(problems)


def select(
    model: keras.Layer, targets: object, choices: list[Target], why: str
) -> list[Target]:
    """Return the layers of `choices` that match `targets`, as in `find` but not None.

    `why` says why a layer of the model cannot be a target. It ends an error's sentence
    after "..., which".

    Raises:
        TypeError: If `targets` has another type.
        ValueError: If a target matches no layer. The error lists the nearest names.
    """
    if isinstance(targets, str) and targets == "all-linear":
        return all_linear(model, choices, head_layers(model))
    if isinstance(targets, str | keras.Layer):
        targets = [targets]
    if not isinstance(targets, Sequence | set | frozenset) or not targets:
        raise TypeError(
            f"targets={targets!r} must be None, 'all-linear', a regular expression "
            "over paths, or a list of expressions and layers."
        )
    chosen: set[int] = set()
    for wanted in targets:
        chosen |= _matched(wanted, model, choices, why)
    return [target for target in choices if id(target.layer) in chosen]


def projections(
    model: keras.Layer,
    classes: Iterable[type],
    patterns: Iterable[re.Pattern],
    *,
    cross: bool = False,
) -> list[Target]:
    """Return the layers of `classes` below the head that one of `patterns` matches.

    Layers of cross-attention are included only if `cross` is True.
    """
    patterns = tuple(patterns)
    head = {id(layer) for layer in head_layers(model)}
    return [
        target
        for target in candidates(model, classes)
        if id(target.layer) not in head
        and any(is_one(pattern, target.path) for pattern in patterns)
        and (cross or not CROSS.search(target.path))
    ]


def head_layers(model: keras.Layer) -> list[keras.Layer]:
    """Return the layers of the group "head" above the backbone, or an empty list."""
    groups = layer_groups(model)
    if groups[-1].name != "head":
        return []
    return [layer for layer in groups[-1].layers if not isinstance(layer, Part)]


def by_pattern(
    pattern: Mapping[str, object] | None, path: str, value: object
) -> object:
    """Return the value of the first pattern that matches the end of `path`, or `value`.

    An expression has to match whole names up to the end of the path, as in PEFT.
    `"query"` matches each layer of this name, and `"layer_0/.*/query"` only matches the
    layers in `layer_0`.
    """
    for key, special in (pattern or {}).items():
        if re.search(rf"(?:^|/)(?:{key})$", path):
            return special
    return value


def check_patterns(patterns: Iterable[str], targets: list[Target]) -> None:
    """Check that each pattern of `by_pattern` matches one of the targets.

    Raises:
        ValueError: If a pattern matches no target.
    """
    paths = [target.path for target in targets]
    for pattern in patterns:
        if not any(by_pattern({pattern: True}, path, False) for path in paths):
            raise ValueError(
                f"The pattern {pattern!r} matches none of the targets. A pattern has "
                "to match whole names up to the end of a path. "
                f"{nearest(pattern, paths)}"
            )


def biased_layers(model: keras.Layer) -> list[keras.Layer]:
    """Return the layers below the head that have a bias."""
    head = {id(layer) for layer in head_layers(model)}
    unused = unreached_weights(model)
    return [
        layer
        for layer in located(model).values()
        if any(weight.name == "bias" for weight in _keras.own_weights(layer))
        and id(layer) not in head
        and not _all_in(unused, layer)
    ]


def nearest(text: str, names: Iterable[str]) -> str:
    """Return a sentence with the paths that are most similar to a pattern."""
    names = list(dict.fromkeys(names))
    plain = re.sub(r"[\\^$.*+?()\[\]|]", "", text)
    last = {name: name.rsplit("/", 1)[-1] for name in names}
    close = difflib.get_close_matches(
        plain, sorted(set(last.values())), n=3, cutoff=0.4
    )
    near = [name for name in names if last[name] in close]
    near = near or difflib.get_close_matches(plain, names, n=3, cutoff=0)
    return f"The nearest are {near[:5]}, of {len(names)} layers." if names else ""


def _matched(
    wanted: object, model: keras.Layer, choices: list[Target], why: str
) -> set[int]:
    """Return the ids of the layers in `choices` that one target matches."""
    if isinstance(wanted, keras.Layer):
        # An LSTM's weights belong to its cell.
        same = (wanted, getattr(wanted, "cell", wanted))
        if found := {id(x.layer) for x in choices if x.layer in same}:
            return found
        inside = any(layer is wanted for layer in _keras.flat_layers(model))
        if _all_in(unreached_weights(model), wanted):
            raise ValueError(
                f"The outputs of the model do not depend on the layer {wanted.name!r}, "
                "so it cannot train. Leave it out of the targets."
            )
        raise ValueError(
            f"The layer {wanted.name!r} is of the class {_kind(wanted)}, which {why}. "
            f"{nearest(wanted.name, (choice.path for choice in choices))}"
            if inside
            else f"The layer {wanted.name!r} ({type(wanted).__name__}) is not in the "
            f"model. {nearest(wanted.name, (choice.path for choice in choices))}"
        )
    if not isinstance(wanted, str):
        raise TypeError(
            f"{wanted!r} cannot be a target. Give a regular expression over paths, or "
            "a layer."
        )
    try:
        chosen = {id(x.layer) for x in choices if re.search(wanted, x.path)}
    except re.error as problem:
        raise ValueError(
            f"The target {wanted!r} is not a regular expression: {problem}. Escape "
            "special characters with a backslash."
        ) from problem
    if not chosen:
        raise ValueError(_about_nothing(wanted, model, choices, why))
    return chosen


def _about_nothing(
    wanted: str, model: keras.Layer, choices: list[Target], why: str
) -> str:
    """Return the error text for an expression that matches none of `choices`."""
    others = {
        path or layer.name: layer
        for path, layer in located(model).items()
        if not isinstance(layer, Part) and re.search(wanted, path or layer.name)
    }
    near = nearest(wanted, (choice.path for choice in choices))
    if not others:
        return f"The target {wanted!r} matches no layer. {near}"
    unused = unreached_weights(model)
    if all(_all_in(unused, layer) for layer in others.values()):
        return (
            f"The target {wanted!r} matches {list(others)[:5]} ({len(others)} in all). "
            "The outputs of the model do not depend on these layers, so they cannot "
            f"train. {near}"
        )
    kinds = sorted({_kind(layer) for layer in others.values()})
    return (
        f"The target {wanted!r} matches the layers {list(others)[:5]} ({len(others)} "
        f"in all), of the class {', '.join(kinds)}, which {why}. {near}".rstrip()
    )


def _kind(layer: keras.Layer) -> str:
    """Return the name of a layer's class. It mentions an overridden `call`."""
    kind = float_class(plain_of(layer))
    base = next(x for x in kind.__mro__ if x.__module__.startswith("keras."))
    if "call" in vars(kind) and base not in (kind, keras.Layer, keras.Model):
        return f"{kind.__name__} (a {base.__name__} that overrides `call`)"
    return kind.__name__
