"""The measures of an audit by group: from fairlearn, and from means of columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_transfer.analysis.audit.fairness_groups import Attribute
from keras_transfer.analysis.audit.fairness_rows import AuditRows
from keras_transfer.analysis.audit.fairness_rows import CLASSES

# Name -> heading. The first measure of each kind is of the labels.
RATES = {
    "label_rate": "positive labels",
    "positive_rate": "predicted positive",
    "accuracy": "accuracy",
    "false_positive_rate": "false positive rate",
    "false_negative_rate": "false negative rate",
    "precision": "precision",
}
ERRORS = {
    "mean_label": "mean label",
    "mean_prediction": "mean prediction",
    "mean_error": "mean error",
    "mean_absolute_error": "mean absolute error",
    "root_mean_squared_error": "root mean squared error",
}
HEADINGS = RATES | ERRORS
OF_LABELS = ("label_rate", "mean_label")
# A ratio of two means has no meaning if they can be negative.
WITHOUT_RATIO = ("mean_label", "mean_prediction", "mean_error")


def names_of(rows: AuditRows) -> list[str]:
    """Return the names of the measures for classes or for numbers."""
    return [*(RATES if rows.kind == CLASSES else ERRORS)]


def by_group(
    rows: AuditRows, attribute: Attribute, positive: int | None
) -> dict[str, np.ndarray]:
    """Return the value of each measure for each group, computed by fairlearn.

    A value that is not defined is NaN, such as the false negative rate of a group
    without positives, for which fairlearn itself returns 0.

    Args:
        rows: Labels and predictions.
        attribute: The groups.
        positive: The class that counts as positive; None for numbers.

    Raises:
        ImportError: If fairlearn is not installed.
    """
    try:
        from fairlearn.metrics import MetricFrame
    except ImportError as error:
        raise ImportError(
            "kt.analysis.fairness needs fairlearn: pip install fairlearn, or "
            'pip install "keras_transfer[audit]".'
        ) from error
    metrics = _errors() if positive is None else _rates(positive)
    frame = MetricFrame(
        metrics=metrics,
        y_true=rows.true,
        y_pred=rows.predicted,
        sensitive_features=attribute.index,
    )
    values = frame.by_group.reindex(range(len(attribute.groups)))
    return {name: values[name].to_numpy("float64") for name in metrics}


def columns_of(rows: AuditRows, positive: int | None) -> np.ndarray:
    """Return a row of numbers for each example, whose means give all measures."""
    if positive is None:
        error = rows.predicted - rows.true
        columns = rows.true, rows.predicted, error, np.abs(error), error**2
    else:
        true, predicted = rows.true == positive, rows.predicted == positive
        columns = true, predicted, true & predicted, rows.true == rows.predicted
    return np.stack(columns, axis=1).astype("float64")


def from_means(means: np.ndarray, positive: int | None) -> dict[str, np.ndarray]:
    """Return each measure from means of the columns, along the last axis."""
    parts = np.moveaxis(means, -1, 0)
    if positive is None:
        *same, squared = parts
        return dict(zip(ERRORS, [*same, np.sqrt(np.maximum(squared, 0))], strict=True))
    true, predicted, both, right = parts
    return {
        "label_rate": true,
        "positive_rate": predicted,
        "accuracy": right,
        "false_positive_rate": _ratio(predicted - both, 1 - true),
        "false_negative_rate": _ratio(true - both, true),
        "precision": _ratio(both, predicted),
    }


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    defined = below > 1e-12
    return np.where(defined, above / np.where(defined, below, 1), np.nan)


def _rates(positive: int) -> dict[str, Callable]:
    from fairlearn import metrics
    from sklearn.metrics import accuracy_score
    from sklearn.metrics import precision_score

    def rate(function: Callable, defined: Callable = lambda true: True) -> Callable:
        def of_class(true: Any, predicted: Any) -> float:
            true, predicted = (np.asarray(x) == positive for x in (true, predicted))
            if not defined(true):
                return np.nan
            return function(true.astype(int), predicted.astype(int))

        return of_class

    return {
        "label_rate": rate(lambda y, p: metrics.selection_rate(p, y, pos_label=1)),
        "positive_rate": rate(lambda y, p: metrics.selection_rate(y, p, pos_label=1)),
        "accuracy": accuracy_score,
        "false_positive_rate": rate(
            lambda y, p: metrics.false_positive_rate(y, p, pos_label=1),
            lambda true: not true.all(),
        ),
        "false_negative_rate": rate(
            lambda y, p: metrics.false_negative_rate(y, p, pos_label=1),
            lambda true: true.any(),
        ),
        "precision": rate(lambda y, p: precision_score(y, p, zero_division=np.nan)),
    }


def _errors() -> dict[str, Callable]:
    from fairlearn.metrics import mean_prediction
    from sklearn.metrics import mean_absolute_error
    from sklearn.metrics import root_mean_squared_error

    return {
        "mean_label": lambda y, p: mean_prediction(p, y),
        "mean_prediction": mean_prediction,
        "mean_error": lambda y, p: float(np.mean(np.asarray(p) - np.asarray(y))),
        "mean_absolute_error": mean_absolute_error,
        "root_mean_squared_error": root_mean_squared_error,
    }
