"""Read the groups of examples: one or several attributes, and their intersections."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np

from keras_transfer.data.labels import listed

MOST = 50  # largest number of groups of an attribute, or of an intersection
BETWEEN = " × "  # between the names of an intersection


class Attribute(NamedTuple):
    """An attribute of the examples, such as sex, with its groups.

    Args:
        name: Name of the attribute.
        groups: Names of the groups, sorted.
        index: The number of the group of each example, an int array `(count,)`.
        parts: Names of the attributes of an intersection; otherwise empty.
    """

    name: str
    groups: tuple[str, ...]
    index: np.ndarray
    parts: tuple[str, ...] = ()


def read_groups(groups: Any, count: int, name: str = "groups") -> list[Attribute]:
    """Return the attributes in `groups`, and the intersection of several.

    Args:
        groups: Array of one group for each example, or a dict or DataFrame of such
            arrays by the name of the attribute.
        count: Number of examples.
        name: Name of the argument, for messages.

    Raises:
        TypeError: If `groups` is None or one string.
        ValueError: If there is no attribute, lengths differ from `count`, values are
            missing, an attribute has a single group, or one has more than 50.
    """
    columns = _columns(groups, name)
    found = [
        _attribute(f"{name}[{key!r}]" if named else name, str(key), values, count)
        for (key, values), named in columns
    ]
    if len(found) > 1:
        crossed = _intersection(found)
        if 1 < len(crossed.groups) <= MOST:
            found.append(crossed)
    return found


def numbered_as(attribute: Attribute, other: Attribute, name: str) -> np.ndarray:
    """Return the groups of `other` with the numbers that `attribute` gives them.

    Raises:
        ValueError: If `other` has a group that `attribute` has not.
    """
    places = {group: place for place, group in enumerate(attribute.groups)}
    unknown = [group for group in other.groups if group not in places]
    if unknown:
        raise ValueError(
            f"The {name} of {attribute.name!r} have {listed(unknown)}, which no "
            "example of `data` has, so their shares cannot be compared. Pass examples "
            "of the same groups, or rename the groups."
        )
    return np.array([places[group] for group in other.groups], int)[other.index]


def _columns(groups: Any, name: str) -> list:
    """Return pairs of (key, values) and whether the values were named."""
    example = f'{name}={{"sex": [...], "age": [...]}}'
    if groups is None or isinstance(groups, str | bytes):
        raise TypeError(
            f"{name}={groups!r} has no group for each example. Pass an array with one "
            f"group for each example, or several attributes, such as {example}."
        )
    if isinstance(groups, Mapping) or hasattr(groups, "columns"):
        columns = [((key, groups[key]), True) for key in groups]
        if not columns:
            raise ValueError(f"`{name}` has no attribute. Pass {example}.")
        names = [str(key) for (key, _), _ in columns]
        if len(set(names)) < len(names):
            raise ValueError(f"`{name}` has an attribute twice: {names}. Rename it.")
        return columns
    key = getattr(groups, "name", None)  # of a Series of pandas
    return [(("group" if key is None else key, groups), False)]


def _attribute(said: str, key: str, values: Any, count: int) -> Attribute:
    array = values if isinstance(values, Sequence) else np.asarray(values)
    shape = np.shape(np.asarray(array, object))
    if len(shape) == 2 and shape[1] == 1:
        array, shape = np.asarray(array, object)[:, 0], shape[:1]
    if len(shape) != 1:
        raise ValueError(
            f"`{said}` has the shape {shape}. Pass one group for each example. For "
            "several attributes, pass a dict of such arrays."
        )
    if shape[0] != count:
        raise ValueError(
            f"`{said}` has {shape[0]} values, but there are {count} examples. Pass one "
            "group for each example, in the same order."
        )
    values = [each.item() if isinstance(each, np.generic) else each for each in array]
    missing = sum(map(_is_missing, values))
    if missing:
        raise ValueError(
            f"{missing} of {count} values of `{said}` are missing (None, NaN or an "
            "empty string), so it is unknown which group they belong to. Remove these "
            'examples, or give them a group of their own, such as "unknown".'
        )
    texts = [each.decode() if isinstance(each, bytes) else str(each) for each in values]
    names = tuple(sorted(set(texts)))
    if len(names) < 2:
        raise ValueError(
            f"All {count} values of `{said}` are {names[0]!r}, so there is nothing to "
            "compare. Pass examples of at least two groups."
        )
    if len(names) > MOST:
        raise ValueError(
            f"`{said}` has {len(names)} different values, such as {listed(names)}. At "
            f"most {MOST} groups are compared. Put numbers into ranges, for example by "
            "pandas.cut."
        )
    places = {group: place for place, group in enumerate(names)}
    return Attribute(key, names, np.array([places[text] for text in texts]))


def _intersection(attributes: Sequence[Attribute]) -> Attribute:
    texts = [
        BETWEEN.join(
            each.groups[number] for each, number in zip(attributes, row, strict=True)
        )
        for row in np.stack([each.index for each in attributes], axis=1)
    ]
    names = tuple(sorted(collections.Counter(texts)))
    places = {group: place for place, group in enumerate(names)}
    parts = tuple(each.name for each in attributes)
    index = np.array([places[text] for text in texts])
    return Attribute(BETWEEN.join(parts), names, index, parts)


def _is_missing(value: Any) -> bool:
    kind = type(value).__name__
    if value is None or kind in ("NAType", "NaTType"):
        return True
    if isinstance(value, str | bytes):
        return not value.strip()
    return isinstance(value, float) and math.isnan(value)
