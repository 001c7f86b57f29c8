"""Store the class names of a model."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import keras

# Weak keys do not keep models alive. Model classes of this package save the names in
# their config.
_names: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def remember_class_names(model: keras.Model, names: Sequence[str] | None) -> None:
    """Store the class names of a model, in the order of its outputs.

    A `TransferClassifier` and the domain adaptation models save the names in their
    config. All other models have the names until they are deleted.

    Args:
        model: The model.
        names: Names of the classes, without duplicates. None removes stored names.

    Raises:
        ValueError: If `names` is a single str, is empty, or has duplicates.
    """
    if names is None:
        _names.pop(model, None)
        return
    shown = names
    names = () if isinstance(names, str) else tuple(str(name) for name in names)
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"class_names={shown!r} must be the names of the classes in the order of "
            'the outputs, without duplicates, such as ["cat", "dog"].'
        )
    _names[model] = names


def class_names_of(model: keras.Model) -> tuple[str, ...] | None:
    """Return the class names of a model, or None if it has no class names."""
    return _names.get(model)
