"""Check the class numbers of the examples that a score reads."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer.data.labels import whole_numbers


def class_indices(labels: Any, count: int) -> np.ndarray:
    """Return labels as indices from 0 into the classes that occur.

    Args:
        labels: Whole numbers of shape `(count,)` or `(count, 1)`, or one-hot rows.
        count: Int, the number of examples.

    Returns:
        Array of shape `(count,)` in int64.

    Raises:
        ValueError: If labels have another shape or number, are not whole numbers, or
            are all of one class.
    """
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] > 1:
        if not (np.isin(array, (0, 1)).all() and (array.sum(1) == 1).all()):
            raise ValueError(
                f"`labels` has the shape {array.shape}, but its rows are not one-hot. "
                "Pass the class number of each example."
            )
        array = array.argmax(1)
    array = whole_numbers(array, "one for each example")
    if array.shape != (count,):
        raise ValueError(
            f"There are {array.size} labels for {count} examples. Pass one label for "
            "each example, in the same order."
        )
    classes, indices = np.unique(array, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"All {count} labels are {classes[0]}, so no score can tell features "
            "apart. Pass examples of at least two classes."
        )
    return indices
