"""Which layers of a model a recipe goes to: a family's default, a pattern, objects."""

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

# Targets that name no layer: those that an adapter does not fit are left out.
NAMELESS = (None, "all-linear")


@dataclasses.dataclass(frozen=True)
class Target:
    """A layer that a recipe goes to, and its path below the model."""

    layer: keras.Layer
    path: str


def candidates(model: keras.Layer, classes: Iterable[type]) -> list[Target]:
    """Return the layers of `model` that have a class of `classes`, in model order.

    Those on which the outputs do not depend are left out: nothing would learn there.
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
    """Return whether all that a layer holds is in `unused`, and there is something."""
    weights = layer.weights if unused else []
    return bool(weights) and all(id(weight) in unused for weight in weights)


def own_call(layer: keras.Layer, classes: Iterable[type]) -> bool:
    """Return whether `layer` computes as one of `classes` does, by inherited code."""
    kind = plain_of(layer)
    calls = {vars(kind).get("call", getattr(kind, "call", None)) for kind in classes}
    return getattr(kind, "call", None) in calls


def find(
    model: keras.Layer, targets: object, classes: Iterable[type], technique: str
) -> list[Target]:
    """Return the targets of a recipe in `model`, one or more.

    Args:
        model: A built model.
        targets: None for the default of the family, `"all-linear"`, a regular
            expression that is searched in the paths, or a list of expressions and
            layers.
        classes: The layer classes that the recipe can go to.
        technique: Name of the recipe's class.

    Raises:
        TypeError: If `targets` is nothing of this kind.
        ValueError: If it matches no layer, or none of these classes.
    """
    choices = candidates(model, classes)
    names = ", ".join(sorted(kind.__name__ for kind in classes))
    why = f"{technique} cannot adapt; it adapts {names}"
    if not choices and targets in NAMELESS:
        raise ValueError(
            f"The model {model.name!r} has no layer that {technique} can adapt: none "
            f"of {names}."
        )
    if targets is None:
        return default_targets(model, choices, technique)
    return select(model, targets, choices, why)


def fitting(
    targets: Iterable[Target], part: Callable[[Target], Part]
) -> tuple[list[Target], int]:
    """Return the targets that `part` has a part for, and how many it has none for.

    Raises:
        ValueError: If it has one for none of them.
    """
    fit, problems = [], []
    for target in targets:
        try:
            if _keras.own_weights(target.layer):  # or else nothing is known of it
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
    """Return those of `choices` that `targets` of `find`, but for None, speak of.

    `why` ends the sentence about layers that are there and no choice: "..., which".

    Raises:
        TypeError: If `targets` is nothing of this kind.
        ValueError: If one matches no layer; the error lists the nearest names.
    """
    if isinstance(targets, str) and targets == "all-linear":
        return all_linear(model, choices, head_layers(model))
    if isinstance(targets, str | keras.Layer):
        targets = [targets]
    if not isinstance(targets, Sequence | set | frozenset) or not targets:
        raise TypeError(
            f"targets={targets!r} is neither None, 'all-linear', a regular expression "
            "over paths, nor a list of expressions or layers."
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

    Those of cross-attention only with `cross`.
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
    """Return the layers above the backbone: the group "head", if there is one."""
    groups = layer_groups(model)
    if groups[-1].name != "head":
        return []
    return [layer for layer in groups[-1].layers if not isinstance(layer, Part)]


def by_pattern(
    pattern: Mapping[str, object] | None, path: str, value: object
) -> object:
    """Return the value of the first pattern that matches the end of `path`.

    As in PEFT, `"query"` matches a layer of that name and `"layer_0/.*/query"` one at
    that place: an expression has to match whole names from some name to the end.
    """
    for key, special in (pattern or {}).items():
        if re.search(rf"(?:^|/)(?:{key})$", path):
            return special
    return value


def check_patterns(patterns: Iterable[str], targets: list[Target]) -> None:
    """Check that each pattern of `by_pattern` is for one of the targets.

    Raises:
        ValueError: If one matches nothing.
    """
    paths = [target.path for target in targets]
    for pattern in patterns:
        if not any(by_pattern({pattern: True}, path, False) for path in paths):
            raise ValueError(
                f"The pattern {pattern!r} matches none of the targets. It is compared "
                f"with whole names up to the end of a path. {nearest(pattern, paths)}"
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
    """Return the sentence that offers the paths most like a pattern."""
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
    """Return the layers (ids) among `choices` that one target speaks of."""
    if isinstance(wanted, keras.Layer):
        # Of an LSTM it is the cell that has the weights.
        same = (wanted, getattr(wanted, "cell", wanted))
        if found := {id(x.layer) for x in choices if x.layer in same}:
            return found
        inside = any(layer is wanted for layer in _keras.flat_layers(model))
        if _all_in(unreached_weights(model), wanted):
            raise ValueError(
                f"The outputs of the model do not depend on the layer {wanted.name!r}: "
                "nothing would learn there."
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
            f"A target is {wanted!r}. Give a regular expression over paths, or a layer."
        )
    try:
        chosen = {id(x.layer) for x in choices if re.search(wanted, x.path)}
    except re.error as problem:
        raise ValueError(
            f"{wanted!r} is not a regular expression: {problem}."
        ) from problem
    if not chosen:
        raise ValueError(_about_nothing(wanted, model, choices, why))
    return chosen


def _about_nothing(
    wanted: str, model: keras.Layer, choices: list[Target], why: str
) -> str:
    """Return what is said of an expression that matches none of `choices`."""
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
            f"The target {wanted!r} matches {list(others)[:5]} ({len(others)} in all), "
            "on which the outputs of the model do not depend: nothing would learn "
            f"there. {near}"
        )
    kinds = sorted({_kind(layer) for layer in others.values()})
    return (
        f"The target {wanted!r} matches the layers {list(others)[:5]} ({len(others)} "
        f"in all), of the class {', '.join(kinds)}, which {why}. {near}".rstrip()
    )


def _kind(layer: keras.Layer) -> str:
    """Return the name of a layer's class; a call of its own is why its base is not."""
    kind = plain_of(layer)
    base = next(x for x in kind.__mro__ if x.__module__.startswith("keras."))
    if "call" in vars(kind) and base not in (kind, keras.Layer, keras.Model):
        return f"{kind.__name__} (a {base.__name__} with a call of its own)"
    return kind.__name__
