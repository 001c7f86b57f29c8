"""Numbers that are not finite: in arrays before any training, in weights after."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.data.examples import map_arrays

TRIED = 8  # examples with such values that the model is run on


def check_numbers(model: keras.Model, data: Any) -> None:
    """Check that arrays of features and of sample weights are of use to a model.

    Values that are NaN or infinite may have a meaning for the model, which is asked;
    where its outputs for them are not finite either, one such batch would make all of
    its weights NaN. Datasets are read by `fit` alone, and are not checked here.

    Args:
        model: The model.
        data: Tuple of arrays, or a dataset.

    Raises:
        ValueError: If features or sample weights are not finite, or weights negative.
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
        f"(the first is number {rows[0]}), and so are the outputs of the model for "
        "them: all of its weights would become NaN. Take these examples out, or fill "
        "the values in."
    )


class StaysFinite(keras.callbacks.Callback):
    """End a training with an error once weights of the model are not finite.

    A dataset is not read before. With TerminateOnNaN it is for the user to judge.
    """

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Look at the weights if the loss of the epoch is not finite."""
        loss = (logs or {}).get("loss", 0.0)
        if np.isfinite(loss):
            return
        wrong = [
            variable.path
            for variable in self.model.trainable_variables
            if not np.isfinite(_keras.value(variable)).all()
        ]
        if wrong:
            raise ValueError(
                f"In epoch {epoch} the loss became {loss}, and with it {len(wrong)} "
                f"weights of the model, such as {wrong[0]!r}. Look for features or "
                "labels that are NaN or infinite, or take a smaller learning rate: "
                "kt.find_learning_rate suggests one."
            )


def _check_weights(weights: Any) -> None:
    for array in keras.tree.flatten(map_arrays(lambda array: array, weights)):
        if array.dtype.kind not in "biufV":
            raise ValueError(
                f"The sample weights are not numbers but {array.dtype}. Give each "
                "example a number of 0 or more."
            )
        wrong = ~np.isfinite(array.astype("float64")) | (array.astype("float64") < 0)
        if wrong.any():
            raise ValueError(
                f"{np.count_nonzero(wrong)} of {array.size} sample weights are NaN, "
                "infinite or below 0. Give each example a number of 0 or more."
            )


def _is_broken(array: np.ndarray) -> np.ndarray | bool:
    """Return for each example whether it has a value that is not finite."""
    if array.dtype.kind not in "fV":
        return False
    broken = np.zeros(len(array), bool)
    for start in range(0, len(array), 1024):  # the copy is as large as this part
        part = array[start : start + 1024].reshape(len(array[start : start + 1024]), -1)
        broken[start : start + 1024] = ~np.isfinite(part).all(axis=1)
    return broken


def _is_finite(model: keras.Model, x: Any) -> bool:
    preprocessor = getattr(model, "preprocessor", None)
    if preprocessor is not None:
        x = preprocessor(x)
    outputs = model(x, training=False)
    return all(
        np.isfinite(keras.ops.convert_to_numpy(each).astype("float32")).all()
        for each in keras.tree.flatten(outputs)
    )
