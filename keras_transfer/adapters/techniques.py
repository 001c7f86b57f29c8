"""All adapter techniques, and the techniques that fit a model."""

from __future__ import annotations

import threading

import keras

from keras_transfer.adapters.adapter import Adapter

OURS = "keras_transfer."
# Whether this thread is inside `what_fits`.
_asking = threading.local()


def techniques() -> dict[str, type[Adapter]]:
    """Return a dict from saved name to recipe class, for all registered recipes."""
    kinds, left = {}, [Adapter]
    while left:
        below = left.pop().__subclasses__()
        left += below
        for kind in below:
            name = keras.saving.get_registered_name(kind)
            if keras.saving.get_registered_object(name) is kind:
                kinds[name] = kind
    return kinds


def what_fits(model: keras.Layer) -> str:
    """Return a sentence with the techniques whose default targets fit `model`."""
    if getattr(_asking, "now", False):
        return ""  # a recipe that is tried below calls this function again
    _asking.now = True
    try:
        names = [
            kind.__name__
            for kind in techniques().values()
            if kind.__module__.startswith(OURS) and _fits(model, kind)
        ]
    finally:
        _asking.now = False
    if not names:
        return "No technique has default targets for it. Give 'all-linear' or layers."
    return f"Techniques with default targets for it are {', '.join(sorted(names))}."


def _fits(model: keras.Layer, kind: type[Adapter]) -> bool:
    try:
        return bool(kind().fitting(model)[0])
    except ValueError:
        return False
