"""Pairs of texts that differ in one thing: as given, or made from templates."""

from __future__ import annotations

import itertools
import re
import reprlib
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np

from keras_transfer.data.labels import listed

FIRST, SECOND = "first", "second"
MOST = 10  # largest number of comparisons between values
SLOT = re.compile(r"\{(\w+)(?:\[(\w+)\])?\}")


class Comparison(NamedTuple):
    """Pairs of texts with a name for each side.

    Args:
        names: The names of the two sides, such as `("he", "she")`.
        pairs: The texts.
        slots: For each pair, a dict from the other slots of its template to the names
            of their values.
    """

    names: tuple[str, str]
    pairs: list[tuple[str, str]]
    slots: list[dict[str, str]]


def comparisons(texts: Any, substitutions: Any, change: str | None) -> list[Comparison]:
    """Return the pairs of texts to compare.

    Args:
        texts: List of pairs of texts, or a template or a list of templates.
        substitutions: Dict from slots of templates to their values; None for pairs.
        change: The slot that makes the difference; None if there is only one.

    Raises:
        TypeError: If `texts` or a value has another form.
        ValueError: If there is no text, a pair has equal texts, a slot has no values or
            is not used, or `change` is not clear.
    """
    if not isinstance(texts, Iterable) or isinstance(texts, bytes):
        raise TypeError(
            f"The texts are {reprlib.repr(texts)}. Pass a list of pairs of strings, "
            "such as [(text_a, text_b)], or a template or a list of templates."
        )
    items = [texts] if isinstance(texts, str) else list(texts)
    # Rows of an array, such as of two columns of a table.
    items = [x.tolist() if isinstance(x, np.ndarray) else x for x in items]
    if not items:
        raise ValueError("There are no texts. Pass at least one pair or one template.")
    if all(isinstance(each, str) for each in items):
        return _of_templates(items, substitutions, change)
    for name, value in (("substitutions", substitutions), ("change", change)):
        if value is not None:
            raise ValueError(
                f"`{name}` has no effect on pairs of texts. Pass templates, or leave "
                "it out."
            )
    pairs = [_pair(place, each) for place, each in enumerate(items)]
    return [Comparison((FIRST, SECOND), pairs, [{} for _ in pairs])]


def _pair(place: int, item: Any) -> tuple[str, str]:
    is_pair = isinstance(item, Sequence) and not isinstance(item, str | bytes)
    if not is_pair or len(item) != 2 or not all(isinstance(x, str) for x in item):
        raise TypeError(
            f"Item {place} is {reprlib.repr(item)}. Pass a list of pairs of strings, "
            "such as [(text_a, text_b)], or a list of templates only."
        )
    _check_different(place, tuple(item))
    return tuple(item)


def _check_different(place: int, pair: tuple[str, str]) -> None:
    if pair[0] == pair[1]:
        raise ValueError(
            f"Pair {place} has the same text twice, {pair[0][:60]!r}, so nothing "
            "changes. Remove it, or change one side."
        )


def _of_templates(
    templates: list[str], substitutions: Any, change: str | None
) -> list[Comparison]:
    values = _values(substitutions)
    slots = [_slots(template) for template in templates]
    used = set().union(*slots)
    unknown, unused = sorted(used - set(values)), sorted(set(values) - used)
    if unknown or unused:
        raise ValueError(
            f"The slots of the templates are {sorted(used)}, but `substitutions` has "
            f"{sorted(values)}. Pass values for each slot, and only for these."
        )
    change = _changed(change, values, templates, slots)
    sides = [*itertools.combinations(values[change], 2)]
    if len(sides) > MOST:
        raise ValueError(
            f"{change!r} has {len(values[change])} values, which give {len(sides)} "
            f"comparisons. At most {MOST} are made: pass up to 5 values."
        )
    found = []
    for sides_of in sides:
        pairs, filled = [], []
        for template, names in zip(templates, slots, strict=True):
            others = sorted(names - {change})
            for row in itertools.product(*(values[name] for name in others)):
                chosen = dict(zip(others, row, strict=True))
                pair = tuple(
                    _fill(template, chosen | {change: side}) for side in sides_of
                )
                _check_different(len(pairs), pair)
                pairs.append(pair)
                filled.append({key: _name(value) for key, value in chosen.items()})
        found.append(Comparison(tuple(map(_name, sides_of)), pairs, filled))
    return found


def _values(substitutions: Any) -> dict[str, list]:
    example = 'substitutions={"who": ["he", "she"]}'
    if not isinstance(substitutions, Mapping):
        raise TypeError(
            f"substitutions={substitutions!r} is not a dict. Pass the values of each "
            f"slot of the templates, such as {example}."
        )
    found = {}
    for slot, values in substitutions.items():
        values = [] if isinstance(values, str | bytes) else list(values)
        plain = [isinstance(each, str) for each in values]
        forms = [
            isinstance(each, Mapping)
            and bool(each)
            and all(isinstance(text, str) for text in each.values())
            for each in values
        ]
        if not values or not (all(plain) or all(forms)):
            raise TypeError(
                f"The values of {slot!r} are {reprlib.repr(substitutions[slot])}. Pass "
                f"a list of strings, such as {example}, or of dicts of strings."
            )
        names = [_name(each) for each in values]
        if len(set(names)) < len(names):
            raise ValueError(
                f"The values of {slot!r} have one twice: {listed(names)}. Pass "
                "different values."
            )
        found[str(slot)] = values
    return found


def _changed(
    change: str | None,
    values: Mapping[str, list],
    templates: Sequence[str],
    slots: Sequence[set],
) -> str:
    if change is None and len(values) == 1:
        (change,) = values
    if change not in values:
        raise ValueError(
            f"change={change!r} is not a slot. Pass the slot that makes the difference "
            f"between two texts: one of {sorted(values)}."
        )
    if len(values[change]) < 2:
        raise ValueError(
            f"The slot {change!r} has one value, so nothing changes. Pass two or more."
        )
    for template, names in zip(templates, slots, strict=True):
        if change not in names:
            raise ValueError(
                f"The template {template[:60]!r} has no slot {{{change}}}, so nothing "
                "changes in it. Remove it, or add the slot."
            )
    return change


def _slots(template: str) -> set[str]:
    rest = SLOT.sub("", template)
    if "{" in rest or "}" in rest:
        raise ValueError(
            f"The template {template[:60]!r} has a brace that is not part of a slot. "
            "Write a slot as {who} or, for one form of it, {who[subject]}."
        )
    return {match[1] for match in SLOT.finditer(template)}


def _fill(template: str, chosen: Mapping[str, Any]) -> str:
    def value(match: re.Match) -> str:
        found, form = chosen[match[1]], match[2]
        if isinstance(found, str) != (form is None):
            raise ValueError(
                f"The slot {match[0]} does not fit its value {found!r}. Write {{who}} "
                "for values that are strings, and {who[form]} for dicts."
            )
        if form is not None and form not in found:
            raise ValueError(
                f"The value {found!r} lacks the form {form!r} of the slot {match[0]}. "
                "Add it."
            )
        return found if form is None else found[form]

    return SLOT.sub(value, template)


def _name(value: str | Mapping[str, str]) -> str:
    if isinstance(value, str):
        return value
    return "/".join(dict.fromkeys(value.values()))
