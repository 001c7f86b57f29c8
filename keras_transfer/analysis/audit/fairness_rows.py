"""Read the labels and the predictions of a model for an audit, one for each example."""

from __future__ import annotations

import itertools
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_transfer.analysis.report.predictions import Batch
from keras_transfer.analysis.report.predictions import predictions
from keras_transfer.analysis.report.predictions import unchanged
from keras_transfer.analysis.report.reading_outputs import Reading
from keras_transfer.backbones.fingerprint import RowDigest
from keras_transfer.data.class_names import class_names_of
from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import batches_of
from keras_transfer.data.examples import kind_of
from keras_transfer.data.labels import listed
from keras_transfer.data.named_labels import is_named
from keras_transfer.data.named_labels import number_names

COMPARED = 3  # batches that are read twice, to see whether their order is fixed
CLASSES, NUMBERS = "classes", "numbers"


class AuditRows(NamedTuple):
    """Labels and predictions, one for each example.

    Args:
        kind: "classes" or "numbers".
        true: Class numbers, or numbers, of shape `(count,)`.
        predicted: The same for the predictions.
        classes: Names of the classes in order; empty for numbers.
    """

    kind: str
    true: np.ndarray
    predicted: np.ndarray
    classes: tuple[str, ...] = ()


def read_rows(
    model: keras.Model, data: Any, name: str = "model", classes: tuple[str, ...] = ()
) -> AuditRows:
    """Return the labels of `data` and what `model` predicts. It does not change.

    Args:
        model: A model with one output.
        data: Arrays `(x, y)`, a batched dataset or a PyDataset.
        name: Name of the argument, for messages.
        classes: Names of the classes, if the model and the data do not know them.

    Raises:
        TypeError: If `model` is not a Keras model, or data is of an unknown kind.
        ValueError: If data is empty, has weights, labels that do not fit or an order
            that changes, if the model has several outputs, if an example has several
            labels, or if labels or outputs are not finite.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"{name} is a {type(model).__name__}, not a keras.Model. Pass a model that "
            "predicts the labels of `data`."
        )
    with unchanged(model):
        batches = [_only(model, each, name) for each in predictions(model, data)]
    known = getattr(data, "class_names", None) or class_names_of(model) or classes
    batches = [_numbered(batch, known) for batch in batches]
    labels, outputs = (
        np.concatenate([getattr(each, part) for each in batches])
        for part in ("labels", "outputs")
    )
    _check_finite(f"outputs of `{name}`", outputs)
    if labels.dtype.kind in "biuf":
        _check_finite("labels", labels)
    batch = Batch(None, labels, outputs)
    reading = Reading.of(model, batch)
    if reading.kind == NUMBERS:
        true, predicted = reading.numbers(batch)
        if true.shape[1] != 1:
            raise ValueError(
                f"{name} predicts {true.shape[1]} numbers for each example. Audit one "
                "number at a time."
            )
        return AuditRows(NUMBERS, true[:, 0], predicted[:, 0])
    if reading.kind != CLASSES:
        raise ValueError(
            f"{name} has {reading.num_classes} separate labels for each example. Audit "
            "one label at a time, with a model that has only this output."
        )
    true, logs = reading.classes(batch)
    if len(np.unique(true)) < 2:
        raise ValueError(
            f"All {len(true)} labels are of one class, {true[0]}, so error rates of "
            "other classes are not defined. Pass examples of at least two classes."
        )
    names = map(str, range(reading.num_classes))
    if isinstance(known, list | tuple) and len(known) == reading.num_classes:
        names = map(str, known)
    return AuditRows(CLASSES, true, logs.argmax(1), tuple(names))


def check_order(data: Any) -> None:
    """Check that a dataset returns its examples in the same order in each pass.

    Raises:
        ValueError: If the first batches of two passes differ.
    """
    if kind_of(data) == ARRAYS:
        return
    passes = []
    for _ in range(2):
        digest = RowDigest()
        for element in itertools.islice(batches_of(data), COMPARED):
            arrays = [each for each in keras.tree.flatten(element) if each is not None]
            digest.update([np.asarray(each) for each in arrays])
        passes.append(digest.value())
    if passes[0] != passes[1]:
        raise ValueError(
            "`data` has another order in each pass, so `groups` would belong to other "
            "examples. Leave out its shuffle()."
        )


def class_number(positive: Any, rows: AuditRows) -> int:
    """Return the number of the class that `positive` names.

    Raises:
        ValueError: If it is not a class, or there are no classes.
    """
    if rows.kind == NUMBERS:
        raise ValueError(
            f"positive={positive!r} names a class, but the outputs are numbers, which "
            "have no classes. Leave out `positive`."
        )
    if isinstance(positive, str) and positive in rows.classes:
        return rows.classes.index(positive)
    whole = isinstance(positive, int | np.integer) and not isinstance(positive, bool)
    if whole and 0 <= positive < len(rows.classes):
        return int(positive)
    raise ValueError(
        f"positive={positive!r} is not a class. Pass the name or the number of one of "
        f"the {len(rows.classes)} classes: {listed(rows.classes)}."
    )


def _only(model: keras.Model, batches: dict, name: str) -> Batch:
    """Return the batch of the only output, without what would be ignored."""
    if list(batches) != [""] or batches[""] is None:
        raise ValueError(
            f"{name}, {model.name!r}, has the outputs {[*batches]}. Audit one output "
            "at a time: keras.Model(model.input, model.output[...])."
        )
    batch = batches[""]
    if batch.weights is not None:
        raise ValueError(
            "`data` has sample weights, which an audit does not use. Pass (x, y)."
        )
    if batch.labels.ndim > 2 or batch.outputs.ndim > 2:
        raise ValueError(
            f"The labels have the shape {batch.labels.shape} and the outputs of {name} "
            f"{batch.outputs.shape}. An audit needs one label for each example."
        )
    return batch


def _numbered(batch: Batch, known: Any) -> Batch:
    if not is_named(batch.labels):
        return batch
    if not known:
        raise ValueError(
            f"The labels are names, such as {batch.labels.flat[0]!r}, and the model "
            "does not know the order of its classes. Number the classes from 0."
        )
    return batch._replace(labels=number_names(batch.labels, [*map(str, known)]))


def _check_finite(what: str, values: np.ndarray) -> None:
    wrong = np.count_nonzero(~np.isfinite(values.astype("float64")))
    if wrong:
        raise ValueError(
            f"{wrong} of {values.size} {what} are NaN or infinite. Remove these "
            "examples, or check whether the training diverged."
        )
