"""The two parts of the new and of the old examples: to train on, and to test on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.data.class_names import class_names_of
from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import map_arrays
from keras_transfer.data.is_held_out import is_held_out
from keras_transfer.data.named_labels import is_named
from keras_transfer.data.named_labels import with_numbers
from keras_transfer.losses.compiled_loss import ONE_HOT
from keras_transfer.losses.compiled_loss import read_loss


class Parts(NamedTuple):
    """The two parts of one set of examples, as arrays `(x, y)`."""

    train: tuple
    test: tuple


def checked_tests(held_out: object) -> dict[str, tuple]:
    """Return test data by name, and nothing if `held_out` is a share.

    Raises:
        ValueError: If a name is not "new" or "old".
    """
    if not isinstance(held_out, Mapping):
        return {}
    if not held_out or not set(held_out) <= {"new", "old"}:
        raise ValueError(
            f"held_out has the keys {sorted(map(str, held_out))}. Pass test data "
            "(x, y) for 'new', 'old' or both, or a share such as 0.25."
        )
    return dict(held_out)


def parts_of(
    model: keras.Model, name: str, data: Any, held_out: float | tuple
) -> Parts:
    """Return the part to train on and the part that is held out.

    Args:
        model: The model.
        name: "new" or "old".
        data: The examples.
        held_out: The share that is held out, or other examples to test on.

    Raises:
        TypeError: If the examples are not a pair of arrays.
        ValueError: If a part has no examples, or the names of classes are unknown.
    """
    train = _arrays(model, f"{name}_data", data)
    if not isinstance(held_out, float):
        return Parts(train, _arrays(model, f"held_out[{name!r}]", held_out))
    return _split(f"{name}_data", train, held_out)


def _arrays(model: keras.Model, name: str, data: Any) -> tuple:
    """Return a pair of inputs and labels as arrays, with numbers instead of names."""
    if kind_of(data, name) != ARRAYS or len(data) != 2:
        raise TypeError(
            f"`{name}` is not a pair of arrays (x, y). Examples are held out one by "
            "one, so pass arrays or lists, and leave out sample weights."
        )
    count_rows(data, name)
    x, y = map_arrays(_as_keras, data)
    if not is_named(y):
        return x, y
    names = class_names_of(model)
    if not names:
        raise ValueError(
            f"The labels of `{name}` are names, but the model does not know their "
            "order. Number the classes from 0."
        )
    labels = read_loss(_keras.compile_arguments(model)["loss"]).labels
    return with_numbers((x, y), names, one_hot=labels == ONE_HOT)


def _split(name: str, data: tuple, share: float) -> Parts:
    held_out = is_held_out(data[0], share)
    if held_out.all() or not held_out.any():
        raise ValueError(
            f"held_out={share:g} of the {len(held_out)} examples of `{name}` leaves "
            f"{held_out.sum()} to test on and {(~held_out).sum()} to train on. Pass "
            "more examples, or another held_out."
        )
    parts = (
        map_arrays(lambda each, rows=rows: each[rows], data)
        for rows in (np.flatnonzero(~held_out), np.flatnonzero(held_out))
    )
    return Parts(*parts)


def _as_keras(array: np.ndarray) -> np.ndarray:
    """Return floats of 64 bits, such as those of lists, in the dtype of `fit`."""
    return array.astype(keras.config.floatx()) if array.dtype == "float64" else array
