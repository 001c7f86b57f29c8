"""The names of the classes of a model, kept with it."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import keras

# The models are not kept alive. Those that have a config of ours save the names in it.
_names: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def remember_class_names(model: keras.Model, names: Sequence[str] | None) -> None:
    """Keep the names of the classes of a model, in the order of its outputs.

    A `TransferClassifier`, and a model of domain adaptation, has them in its config, so
    that they are saved with it. Any other model has them as long as it lives.

    Args:
        model: The model.
        names: Names, each given once. None forgets those that are there.

    Raises:
        ValueError: If `names` is a single str, empty, or a name is there twice.
    """
    if names is None:
        _names.pop(model, None)
        return
    shown = names
    names = () if isinstance(names, str) else tuple(str(name) for name in names)
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"class_names={shown!r} must be the names of the classes in the order of "
            'the outputs, each given once, such as ["cat", "dog"].'
        )
    _names[model] = names


def class_names_of(model: keras.Model) -> tuple[str, ...] | None:
    """Return the names of the classes of a model, or None where none are known."""
    return _names.get(model)
