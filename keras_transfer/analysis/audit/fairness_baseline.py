"""The predictions of a baseline: of its own head, or of a probe on its features."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_transfer.analysis.audit.fairness_rows import AuditRows
from keras_transfer.analysis.audit.fairness_rows import CLASSES
from keras_transfer.analysis.audit.fairness_rows import read_rows
from keras_transfer.analysis.domains.outputs import read_domain
from keras_transfer.analysis.linear_solutions import Solution
from keras_transfer.analysis.linear_solutions import solve_classes
from keras_transfer.analysis.linear_solutions import solve_numbers
from keras_transfer.analysis.report.predictions import unchanged
from keras_transfer.analysis.transferability.probe import folds_of
from keras_transfer.backbones.features import features
from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import BATCH_SIZE
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import PY_DATASET
from keras_transfer.data.examples import rows_of
from keras_transfer.data.labels import listed

FOLDS = 5
SEED = 0


def needs_probe(baseline: keras.Model, rows: AuditRows) -> bool:
    """Return whether a baseline has no head for the labels, so a probe is needed.

    Args:
        baseline: A model. Its outputs decide, if they are known before a call.
        rows: What the audited model predicts.
    """
    outputs = keras.tree.flatten(getattr(baseline, "outputs", None) or [])
    if not outputs:
        return False
    if len(outputs) > 1 or len(outputs[0].shape) != 2:
        return True
    size, classes = outputs[0].shape[-1], len(rows.classes)
    return size != classes and not (size == 1 and classes in (0, 2))


def prepared(data: Any, model: keras.Model, baseline: keras.Model) -> Any:
    """Return data that a baseline can read, if only the model preprocesses texts.

    Args:
        data: Arrays `(x, y)`, a batched dataset or a PyDataset; None is returned.
        model: The audited model, perhaps with a preprocessor.
        baseline: The baseline.

    Raises:
        ValueError: If data is a PyDataset.
    """
    preprocessor = getattr(model, "preprocessor", None)
    if data is None or preprocessor is None or getattr(baseline, "preprocessor", None):
        return data
    kind = kind_of(data)
    if kind == ARRAYS:
        x = preprocessor(rows_of(data[0], slice(None)))
        x = keras.tree.map_structure(keras.ops.convert_to_numpy, x)
        return (x, *data[1:])
    if kind == PY_DATASET:
        raise ValueError(
            f"{model.name!r} has a preprocessor and the baseline has none, so it "
            "cannot read this PyDataset. Pass arrays or a tf.data.Dataset."
        )
    return data.map(lambda x, y: (preprocessor(x), y))


def baseline_rows(
    baseline: keras.Model, data: Any, rows: AuditRows, train: tuple | None
) -> tuple[AuditRows, str]:
    """Return what a baseline predicts for `data`, and how it does that.

    Args:
        baseline: A model for the same labels, or a backbone.
        data: The data of the audit.
        rows: What the audited model predicts.
        train: `(x, labels)` to fit a probe on, with labels as in `rows`; None to fit
            it by cross-fitting on `data`.

    Raises:
        ValueError: If the baseline predicts another kind of labels, reads other labels,
            or if a class is too rare for a probe.
    """
    if needs_probe(baseline, rows):
        return _probe(baseline, data, rows, train)
    found = read_rows(baseline, data, "baseline", rows.classes)
    if found.kind != rows.kind or len(found.classes) != len(rows.classes):
        raise ValueError(
            f"baseline predicts {_said(found)}, but model predicts {_said(rows)}. Pass "
            "a baseline for the same labels, or a backbone."
        )
    numbers = tuple(map(str, range(len(rows.classes))))
    if numbers not in (found.classes, rows.classes) and found.classes != rows.classes:
        raise ValueError(
            f"baseline has the classes {listed(found.classes)}, but model has "
            f"{listed(rows.classes)}. Pass a baseline with the same classes in the "
            "same order, or a backbone."
        )
    _check_labels(found.true, rows)
    return found, f"the predictions of {baseline.name!r}"


def _probe(
    backbone: keras.Model, data: Any, rows: AuditRows, train: tuple | None
) -> tuple[AuditRows, str]:
    model = features(backbone)
    labels, size = rows.true, model.outputs[0].shape[-1]
    kind = "a logistic probe" if rows.kind == CLASSES else "a ridge regression"
    said = f"{kind} on the {size} features of {backbone.name!r}"
    with unchanged(model):
        read, (x,) = read_domain("data", [model], data, True, BATCH_SIZE)
        x = np.asarray(x, "float64")
        if rows.kind != CLASSES:
            _check_labels(np.reshape(read, -1), rows)
        if train is not None:
            (known,) = read_domain("train", [model], train, True, BATCH_SIZE)[1]
    if train is not None:
        found = _solved(np.asarray(known, "float64"), train[1], rows)
        predicted = _predicted(found, x, rows)
        return rows._replace(predicted=predicted), f"{said}, fitted on `train`"
    predicted = np.empty_like(rows.predicted)
    for inside, outside in _folds(labels, rows):
        found = _solved(x[inside], labels[inside], rows)
        predicted[outside] = _predicted(found, x[outside], rows)
    said += ", fitted on the other folds of `data` (cross-fitting)"
    return rows._replace(predicted=predicted), said


def _folds(labels: np.ndarray, rows: AuditRows) -> Any:
    if rows.kind == CLASSES:
        return folds_of(np.unique(labels, return_inverse=True)[1], SEED)
    from sklearn.model_selection import KFold

    folds = KFold(min(FOLDS, len(labels)), shuffle=True, random_state=SEED)
    return folds.split(labels)


def _solved(x: np.ndarray, labels: np.ndarray, rows: AuditRows) -> Solution:
    if rows.kind != CLASSES:
        return solve_numbers(x, labels[:, None], None)
    found = solve_classes(x, labels, None, len(rows.classes))
    if found is None:
        raise ValueError(
            f"All {len(labels)} labels that the probe is fitted on are of one class, "
            f"{labels[0]}. Pass examples of at least two classes."
        )
    return found


def _predicted(found: Solution, x: np.ndarray, rows: AuditRows) -> np.ndarray:
    outputs = x @ found.kernel + found.bias
    return outputs.argmax(1) if rows.kind == CLASSES else outputs[:, 0]


def _check_labels(labels: np.ndarray, rows: AuditRows) -> None:
    if not np.array_equal(labels.astype("float64"), rows.true.astype("float64")):
        raise ValueError(
            "`data` had other labels in its second pass. Pass data with a fixed order, "
            "such as arrays."
        )


def _said(rows: AuditRows) -> str:
    return f"{len(rows.classes)} classes" if rows.classes else "numbers"
