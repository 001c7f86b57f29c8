"""The techniques that there are, and which of them a model can have."""

from __future__ import annotations

import threading

import keras

from keras_transfer.adapters.adapter import Adapter

OURS = "keras_transfer."
# Whether this thread is finding out what fits.
_asking = threading.local()


def techniques() -> dict[str, type[Adapter]]:
    """Return the registered recipes by their saved names: what a file may name."""
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
    """Return the sentence that names what `model` can have by default targets."""
    if getattr(_asking, "now", False):
        return ""  # the one that is tried would ask in turn
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
        return "No technique has default targets for it: give 'all-linear', or others."
    return f"With their default targets this model can have {', '.join(sorted(names))}."


def _fits(model: keras.Layer, kind: type[Adapter]) -> bool:
    try:
        return bool(kind().fitting(model)[0])
    except ValueError:
        return False
