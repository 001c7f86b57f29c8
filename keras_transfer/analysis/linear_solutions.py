"""Linear maps from features to labels, solved by scikit-learn."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from keras_transfer.analysis.one_thread import one_thread

# Penalties that cross-validation compares (scikit-learn's C, the inverse), and the one
# that is used where a class has too few examples to compare them.
PENALTIES = np.logspace(-4, 1, 6)
PENALTY = 0.1
RIDGE_PENALTIES = np.logspace(-2, 5, 15)
FOLDS = 5
TINY = 1e-20  # the least probability whose logarithm counts
# A feature that hardly varies is scaled by this share of the root mean square of all
# standard deviations: a large weight for it would make the outputs jump as soon as the
# backbone trains.
SCALE_FLOOR = 0.3
# With more examples the penalty is chosen on this many of them.
COMPARED = 1_000
# The logit of a class without examples, below the lowest bias of the others.
ABSENT = 3.0


class Solution(NamedTuple):
    """A linear map, and how it was found.

    Args:
        kernel: Array of shape `(features, outputs)`.
        bias: Array of shape `(outputs,)`.
        text: How it was found.
    """

    kernel: np.ndarray
    bias: np.ndarray
    text: str


def solve_numbers(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray | None
) -> Solution:
    """Return the ridge regression of `labels`, an array `(batch, outputs)`."""
    from sklearn.linear_model import RidgeCV

    mean, scale = _standard(features)
    with one_thread():
        solver = RidgeCV(RIDGE_PENALTIES)
        solved = solver.fit((features - mean) / scale, labels, weights)
    coefficients = np.reshape(solved.coef_, (labels.shape[1], -1))
    text = f"ridge regression with alpha={solved.alpha_:.3g}"
    return _folded(coefficients, np.ravel(solved.intercept_), mean, scale, text)


def solve_classes(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray | None, classes: int
) -> Solution | None:
    """Return the logistic regression of class numbers, with a logit for each class.

    A class without examples gets a constant logit, `ABSENT` below the lowest bias.

    Returns:
        The solution; None if all labels are of one class.
    """
    present = np.unique(labels)
    if len(present) < 2:
        return None
    with one_thread():
        found = _logistic(features, labels, weights)
    if len(present) == 2:  # scikit-learn solves one logit, the difference of the two
        halves = np.array([-0.5, 0.5])
        found = found._replace(kernel=found.kernel * halves, bias=found.bias * halves)
    kernel = np.zeros((features.shape[1], classes))
    bias = np.full(classes, found.bias.min() - ABSENT)
    kernel[:, present], bias[present] = found.kernel, found.bias
    return Solution(kernel, bias, found.text)


def solve_binary(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray | None
) -> Solution | None:
    """Return a logistic regression for each column of `labels`, 0 or 1.

    Returns:
        The solution; None if all labels of a column are equal.
    """
    if any(len(np.unique(column)) < 2 for column in labels.T):
        return None
    with one_thread():
        found = [_logistic(features, column, weights) for column in labels.T]
    kernel = np.concatenate([each.kernel for each in found], axis=1)
    bias = np.concatenate([each.bias for each in found])
    return Solution(kernel, bias, found[0].text)


def _logistic(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray | None
) -> Solution:
    from sklearn.linear_model import LogisticRegression

    mean, scale = _standard(features)
    features = (features - mean) / scale
    axes = None
    if len(features) < features.shape[1]:
        # The solution is in the span of the examples, where it has fewer coordinates.
        _, _, axes = np.linalg.svd(features, full_matrices=False)
        features = features @ axes.T
    penalty, how = _penalty(features, labels, weights)
    solved = LogisticRegression(C=penalty, max_iter=1000)
    with _quiet():
        solved.fit(features, labels, sample_weight=weights)
    coefficients = solved.coef_ if axes is None else solved.coef_ @ axes
    text = f"logistic regression with C={penalty:g}, {how}"
    return _folded(coefficients, solved.intercept_, mean, scale, text)


def _penalty(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray | None
) -> tuple[float, str]:
    """Return the penalty with the lowest log loss in cross-validation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    rows = np.random.default_rng(0).permutation(len(labels))[:COMPARED]
    features, labels = features[rows], labels[rows]
    weights = np.ones(len(rows)) if weights is None else weights[rows]
    _, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
    folds = min(FOLDS, counts.min())
    if folds < 2 or len(counts) < 2:
        return PENALTY, "since a class has a single example"
    losses = np.zeros(len(PENALTIES))
    splits = StratifiedKFold(folds, shuffle=True, random_state=0)
    for train, test in splits.split(features, labels):
        solver = LogisticRegression(max_iter=100, tol=1e-3, warm_start=True)
        for number, penalty in enumerate(PENALTIES):
            solver.set_params(C=penalty)
            with _quiet():
                solver.fit(features[train], labels[train], sample_weight=weights[train])
            shares = solver.predict_proba(features[test])
            shares = shares[np.arange(len(test)), labels[test]]
            losses[number] -= (weights[test] * np.log(np.maximum(shares, TINY))).sum()
    return float(PENALTIES[losses.argmin()]), f"chosen by {folds}-fold cross-validation"


def _standard(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = features.std(axis=0)
    least = SCALE_FLOOR * np.sqrt(np.mean(scale**2)) or 1.0
    return features.mean(axis=0), np.maximum(scale, least)


def _folded(
    coefficients: np.ndarray,
    intercept: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    text: str,
) -> Solution:
    """Return the solution for features that are not standardized."""
    kernel = (coefficients / scale).T
    return Solution(kernel, intercept - mean @ kernel, text)


def _quiet() -> warnings.catch_warnings:
    """Ignore that the solver stopped before it converged: the loss decides."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)
