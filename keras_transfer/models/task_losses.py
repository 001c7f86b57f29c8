"""The compiled loss of each task of a MultiTask, and the labels that fit it."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.losses.batch_loss import differ
from keras_transfer.losses.compiled_loss import ANY_CROSSENTROPY
from keras_transfer.losses.compiled_loss import BINARY
from keras_transfer.losses.compiled_loss import CompiledLoss
from keras_transfer.losses.compiled_loss import NUMBERS
from keras_transfer.losses.compiled_loss import ONE_HOT
from keras_transfer.losses.compiled_loss import read_loss
from keras_transfer.losses.compiled_loss import SPARSE

MEANS = ("sum_over_batch_size", "mean")  # reductions that divide by the rows


def check_compiled(names: Iterable[str], **given: Any) -> None:
    """Check arguments of `compile` that go by the name of the task.

    Args:
        names: Names of the tasks.
        **given: `loss`, which each task needs, `loss_weights` and `metrics`.

    Raises:
        TypeError: If an argument is not a dict.
        ValueError: If it has an unknown name, or a task has no loss.
    """
    names = list(names)
    for argument, value in given.items():
        if value is None and argument != "loss":
            continue
        if not isinstance(value, Mapping):
            raise TypeError(
                f"{argument} is {value!r}, but each task has its own. Pass a dict by "
                f"the names of the heads, {names}."
            )
        unknown = sorted(set(value) - set(names))
        if unknown:
            raise ValueError(
                f"{argument} has {unknown}, but the heads are {names}. Use the names "
                "of the heads."
            )
    missing = [name for name in names if given["loss"].get(name) is None]
    if missing:
        raise ValueError(
            f"loss has no entry for the heads {missing}, which would not train. Pass "
            "a loss for each head."
        )
    for name, loss in given["loss"].items():
        as_loss(name, loss)


def as_loss(name: str, loss: Any) -> keras.losses.Loss:
    """Return the loss of a task as an object.

    Raises:
        ValueError: If it depends on the labels, or has no mean over the rows.
    """
    if isinstance(loss, str) and loss.lower() in ANY_CROSSENTROPY:
        raise ValueError(
            f"The loss of the task {name!r} is {loss!r}, which Keras chooses by the "
            "labels. Name it, such as 'sparse_categorical_crossentropy'."
        )
    found = keras.losses.get(loss)
    if not isinstance(found, keras.losses.Loss):
        return _keras.loss_of_function(found)
    if found.reduction not in MEANS:
        raise ValueError(
            f"The loss of the task {name!r} has the reduction {found.reduction!r}. A "
            "MultiTask takes the mean over the rows of each task itself, so the loss "
            "must keep its default, 'sum_over_batch_size'."
        )
    return found


def mean_loss(
    loss: keras.losses.Loss, labels: Any, outputs: Any, weight: Any, total: Any
) -> Any:
    """Return the weighted mean of a loss over the rows of a task, 0 without any.

    Keras divides by the rows of the batch, and by the number of replicas.

    Args:
        loss: A loss with a mean over the rows.
        labels: Labels of all rows.
        outputs: Outputs of the head for all rows.
        weight: Weight of each row, 0 for rows of other tasks.
        total: Sum of the weights, also over the replicas.
    """
    rows = outputs.shape[0] or ops.shape(outputs)[0]
    rows = ops.cast(rows, "float32") * _keras.replicas_in_step()
    return loss(labels, outputs, weight * rows / ops.where(total > 0, total, 1.0))


def filler(loss: Any, outputs: Any) -> Any:
    """Return labels for an output without labels, which get the weight 0."""
    if read_loss(loss).labels == SPARSE:
        return ops.zeros_like(outputs[..., 0], dtype="int32")
    return ops.zeros_like(outputs)


def check_filler(name: str, loss: Any, metrics: Any) -> None:
    """Check that the form of the labels of a task without labels is known.

    From labels of another form, Keras would make other metrics for `"accuracy"`.

    Raises:
        ValueError: If the task has metrics, and its loss does not say what labels are.
    """
    if metrics and read_loss(loss).labels is None:
        raise ValueError(
            f"The data has no labels of the task {name!r}, which has metrics and the "
            f"loss {read_loss(loss).name!r}, so it is unknown what its labels are. "
            "Pass labels of this task too, or compile without its metrics."
        )


def check_shape(name: str, loss: Any, labels: Any, outputs: Any) -> None:
    """Check that the labels of a task have the shape that its head and loss need.

    Args:
        name: Name of the task.
        loss: The loss, in any form that `compile` takes.
        labels: Labels with a shape.
        outputs: The output of the head, with a shape.

    Raises:
        ValueError: If they do not fit.
    """
    kind = read_loss(loss)
    found, wanted = tuple(labels.shape)[1:], tuple(outputs.shape)[1:]
    classes = wanted[-1] if wanted else None
    if kind.labels == SPARSE:
        fits = classes != 1 and _any(found, wanted[:-1], (*wanted[:-1], 1))
        needs = f"one class of {classes} for each row"
    elif kind.labels in (ONE_HOT, BINARY, NUMBERS):
        fits = _any(found, wanted, *([wanted[:-1]] if classes == 1 else []))
        needs = f"rows of {classes} numbers" if classes != 1 else "one number a row"
    else:
        return
    if not fits:
        raise ValueError(
            f"The labels of the task {name!r} have the shape (rows, "
            f"{', '.join(map(str, found))}), but its head gives (rows, "
            f"{', '.join(map(str, wanted))}) and the loss {kind.name!r} needs {needs}. "
            "Change the units of the head, the loss, or the labels."
        )


def check_values(name: str, loss: Any, labels: np.ndarray, outputs: Any) -> None:
    """Check that the labels of a task are in the label space of its head.

    Args:
        name: Name of the task.
        loss: The loss, in any form that `compile` takes.
        labels: All labels.
        outputs: The symbolic output of the head.

    Raises:
        ValueError: If they do not fit.
    """
    check_shape(name, loss, labels, outputs)
    kind, classes = read_loss(loss), outputs.shape[-1]
    if kind.labels is not None and labels.dtype.kind == "f":
        broken = ~np.isfinite(labels)
        if broken.any():
            raise ValueError(
                f"{np.count_nonzero(broken)} of {labels.size} labels of the task "
                f"{name!r} are NaN or infinite, so its loss would be NaN. For examples "
                "without a label of each task, use kt.data.task_mixture."
            )
    wrong = _wrong(kind, labels, classes)
    if wrong.any():
        space = f"whole numbers from 0 to {classes - 1}"
        raise ValueError(
            f"{np.count_nonzero(wrong)} of {wrong.size} labels of the task {name!r} "
            f"are not in the label space of its head, such as {labels[wrong][0]}. The "
            f"loss {kind.name!r} and {classes} outputs need "
            f"{space if kind.labels == SPARSE else 'numbers from 0 to 1'}. Change the "
            "units of the head, or number the classes from 0."
        )


def _any(found: tuple, *wanted: tuple) -> bool:
    return not all(differ(found, each) for each in wanted)


def _wrong(kind: CompiledLoss, labels: np.ndarray, classes: int) -> np.ndarray:
    if kind.labels == SPARSE:
        wrong = (labels < 0) | (labels >= classes) | (labels != np.floor(labels))
        return wrong & (labels != kind.ignore_class)
    if kind.labels in (ONE_HOT, BINARY):
        return (labels < 0) | (labels > 1)
    return np.zeros(labels.shape, bool)
