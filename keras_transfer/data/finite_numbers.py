"""Find features and sample weights that are not finite, before training."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.data.examples import map_arrays

TRIED = 8  # number of examples with such values to run the model on


def check_numbers(model: keras.Model, data: Any) -> None:
    """Check features and sample weights in arrays for values that break training.

    A model can handle NaN or infinite features. Therefore the model is run on such
    examples. If its outputs or the gradients of its weights are not finite, one such
    batch would make the weights NaN. The outputs alone are not enough, because a ReLU
    can turn NaN into 0. Datasets are not checked, because only `fit` reads them.

    Args:
        model: The model.
        data: Tuple of arrays, or a dataset.

    Raises:
        ValueError: If features break training, or if sample weights are not finite or
            are negative.
    """
    if not isinstance(data, tuple):
        return
    if len(data) == 3:
        _check_weights(data[2])
    x = map_arrays(lambda array: array, data[0])
    broken = False
    for array in keras.tree.flatten(x):
        broken = broken | _is_broken(array)
    if not np.any(broken):
        return
    rows = np.flatnonzero(broken)
    if _is_finite(model, keras.tree.map_structure(lambda a: a[rows[:TRIED]], x)):
        return
    raise ValueError(
        f"{len(rows)} of {len(broken)} examples have features that are NaN or infinite "
        f"(the first has the index {rows[0]}). The outputs or gradients of the model "
        "for these examples are not finite, so its weights would become NaN. Remove "
        "these examples, or fill in the values."
    )


def has_broken(x: Any) -> bool:
    """Return whether arrays or tensors have a value that is not finite."""
    arrays = [np.asarray(each) for each in keras.tree.flatten(x) if each is not None]
    floats = [array for array in arrays if array.dtype.kind in "fV"]
    return not all(np.isfinite(array).all() for array in floats)


def _check_weights(weights: Any) -> None:
    for array in keras.tree.flatten(map_arrays(lambda array: array, weights)):
        if array.dtype.kind not in "biufV":
            raise ValueError(
                f"The sample weights are not numbers but {array.dtype}. Pass a number "
                "of 0 or more for each example."
            )
        wrong = ~np.isfinite(array.astype("float64")) | (array.astype("float64") < 0)
        if wrong.any():
            raise ValueError(
                f"{np.count_nonzero(wrong)} of {array.size} sample weights are NaN, "
                "infinite or below 0. Pass a number of 0 or more for each example."
            )


def _is_broken(array: np.ndarray) -> np.ndarray | bool:
    """Return for each example whether it has a value that is not finite."""
    if array.dtype.kind not in "fV":
        return False
    broken = np.zeros(len(array), bool)
    for start in range(0, len(array), 1024):  # limits the size of the copy
        part = array[start : start + 1024].reshape(len(array[start : start + 1024]), -1)
        broken[start : start + 1024] = ~np.isfinite(part).all(axis=1)
    return broken


def _is_finite(model: keras.Model, x: Any) -> bool:
    preprocessor = getattr(model, "preprocessor", None)
    if preprocessor is not None:
        x = preprocessor(x)
    return _keras.is_finite_for(model, x)
