"""Descriptions of classes in templates, checked."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

PLACE = "{}"


def checked_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Return the templates as a tuple. Each has one `{}`.

    Raises:
        ValueError: If there is none, or one has no `{}` or several.
    """
    found = (templates,) if isinstance(templates, str) else tuple(templates)
    wrong = [x for x in found if not isinstance(x, str) or x.count(PLACE) != 1]
    if wrong or not found:
        raise ValueError(
            f"templates={templates!r} must be texts with {PLACE!r} once, where the "
            f"description goes, such as 'This text is about {PLACE}.'"
        )
    return found


def checked_descriptions(name: str, descriptions: Any) -> tuple[str, ...]:
    """Return the descriptions of a class as a tuple of strings.

    Raises:
        ValueError: If there is none, or one is not a string or empty.
    """
    found = (descriptions,) if isinstance(descriptions, str) else tuple(descriptions)
    if not found or not all(isinstance(x, str) and x.strip() for x in found):
        raise ValueError(
            f"The class {name!r} has the descriptions {descriptions!r}. Pass a text, "
            "or a list of texts, that says what the class is."
        )
    return found


def by_class(classes: Any) -> dict[str, Any]:
    """Return a dict from class names to descriptions. In a list, names describe.

    Raises:
        TypeError: If `classes` is neither a dict nor a list of names.
        ValueError: If a name is there twice.
    """
    if isinstance(classes, Mapping):
        return dict(classes)
    if isinstance(classes, str) or not all(isinstance(x, str) for x in classes):
        raise TypeError(
            f"classes={classes!r} must be a dict from class names to descriptions, or "
            "a list of class names that describe themselves."
        )
    if len(set(classes)) < len(classes):
        raise ValueError(f"classes={classes!r} has a name twice. Name each class once.")
    return {name: name for name in classes}


def filled(templates: Sequence[str], descriptions: Sequence[str]) -> list[str]:
    """Return each description in each template. Other braces stay as they are."""
    return [each.replace(PLACE, text) for each in templates for text in descriptions]
