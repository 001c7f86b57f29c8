"""Test a window against the reference, and return the content of a report."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_transfer.analysis.shift.label_shift import shares_by_confusion
from keras_transfer.analysis.shift.label_shift import shares_by_scores
from keras_transfer.analysis.shift.two_samples import can_reach
from keras_transfer.analysis.shift.two_samples import Columns
from keras_transfer.analysis.shift.two_samples import ks_columns
from keras_transfer.analysis.shift.two_samples import PERMUTATIONS
from keras_transfer.analysis.shift.two_samples import permuted_mmd
from keras_transfer.export.shift_reference import ShiftReference
from keras_transfer.monitoring.window import Window

POINTS = 41  # quantiles of a column that are kept for the plot


def tested(
    reference: ShiftReference, window: Window, level: float, rng: np.random.Generator
) -> dict:
    """Return the tests, the columns and the class shares, as values for JSON.

    Args:
        reference: The reference.
        window: At least two rows.
        level: The level of all tests together.
        rng: Generator of the permutations.
    """
    kind = reference.kind
    names = [reference.class_names[i] for i in kind.tested_classes()]
    both = reference.scores, window.scores
    families = [_family("class scores", names, both, kind.compared, kind.shown)]
    count, mmd, notes = 1, None, []
    if window.features is not None:
        axes = [f"component {i + 1}" for i in range(reference.features.shape[1])]
        reduced = reference.features, window.features
        families.append(_family("features", axes, reduced, _same, _same))
        count = 3 if can_reach(level / 3) else 2
    threshold = level / count
    tests = [_ks_row(family, threshold) for family in families]
    if count == 3:
        found = permuted_mmd(*reduced, threshold, rng)
        mmd = {
            "test": "features, MMD",
            "statistic": found.mmd2,
            "where": f"{found.permutations:,} permutations",
            "p_value": found.p_value,
            "threshold": threshold,
            "shifted": found.p_value <= threshold,
        }
        tests.append(mmd)
    elif window.features is not None:
        notes.append(
            f"The MMD test did not run: at this look its threshold is {level / 3:.2g}, "
            f"and the smallest p-value of {PERMUTATIONS:,} permutations is larger."
        )
    columns = [row for family in families for row in _rows(family)]
    curve = _curve(families[0])
    shares, said = _shares(reference, window)
    return {
        "tests": tests,
        "columns": columns,
        "curve": curve,
        "shares": shares,
        "notes": [*notes, *said],
    }


class _Family(NamedTuple):
    """The columns of one kind in the reference and in the window, and their tests."""

    name: str
    names: Sequence[str]
    left: np.ndarray
    right: np.ndarray
    tests: Columns


def _family(
    name: str,
    names: Sequence[str],
    both: tuple[np.ndarray, np.ndarray],
    compared: Callable,
    shown: Callable,
) -> _Family:
    tests = ks_columns(*(compared(each) for each in both))
    left, right = (shown(each).astype("float64") for each in both)
    return _Family(name, names, left, right, tests)


def _same(rows: np.ndarray) -> np.ndarray:
    return rows


def _ks_row(family: _Family, threshold: float) -> dict:
    tests = family.tests
    first = int(tests.p_values.argmin())
    return {
        "test": f"{family.name}, Kolmogorov-Smirnov",
        "statistic": float(tests.statistics[first]),
        "where": f"most in {family.names[first]!r}",
        "p_value": tests.bonferroni,
        "threshold": threshold,
        "shifted": tests.bonferroni <= threshold,
    }


def _rows(family: _Family) -> list[dict]:
    tests = family.tests
    return [
        {
            "kind": family.name,
            "name": name,
            "reference_mean": float(family.left[:, i].mean()),
            "mean": float(family.right[:, i].mean()),
            "statistic": float(tests.statistics[i]),
            "p_value": float(tests.p_values[i]),
        }
        for i, name in enumerate(family.names)
    ]


def _curve(family: _Family) -> dict:
    """Return quantiles of the most shifted column, for the plot."""
    first = int(family.tests.p_values.argmin())
    at = np.linspace(0, 1, POINTS)
    return {
        "name": family.names[first],
        "reference": np.quantile(family.left[:, first], at).tolist(),
        "window": np.quantile(family.right[:, first], at).tolist(),
    }


def _shares(reference: ShiftReference, window: Window) -> tuple[list, list]:
    """Return the class shares, and notes about them."""
    if window.counts is None:
        return [], []
    kind, notes = reference.kind, []
    predicted = window.counts / window.counts.sum()
    scores = kind.shares(window.scores.astype("float64"))
    by_scores = shares_by_scores(scores, reference.shares)
    by_confusion = None
    if reference.joint is None:
        notes.append(
            "The shares by BBSE need labels in the reference: export with "
            "reference=(x, y)."
        )
    else:
        by_confusion = shares_by_confusion(reference.joint, predicted)
        if by_confusion is None:
            notes.append(
                "BBSE cannot tell the class shares, because the confusion matrix of "
                "the reference lacks a class or is almost singular."
            )
    rows = [
        {
            "class": name,
            "reference": float(reference.shares[i]),
            "predicted": float(predicted[i]),
            "bbse": None if by_confusion is None else float(by_confusion[i]),
            "em": float(by_scores[i]),
        }
        for i, name in enumerate(reference.class_names)
    ]
    return rows, notes
