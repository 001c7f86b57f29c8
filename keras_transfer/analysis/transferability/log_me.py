"""LogME: the evidence for a linear model from features to labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer._arguments import one_of
from keras_transfer.analysis.arrays import as_features
from keras_transfer.analysis.transferability.classes import class_indices

# The noise has at least this share of the mean square of the labels. Without a bound
# the evidence is infinite for labels that are a linear function of the features.
LEAST = 1e-150  # of the largest feature, whose square is a normal number
LEAST_NOISE = 1e-10
RANGE = 1e6  # the search ends this factor outside the eigenvalues
# The search looks at a grid, and then at a finer one around the best point.
ROUNDS, POINTS = 3, 80


def log_me(features: Any, labels: Any, *, regression: bool = False) -> float:
    """Return how well a linear model could explain the labels by the features.

    LogME is the logarithm of the evidence `p(y | F)` per example, for a linear model
    with Gaussian weights and noise, at the variances with the largest evidence. For
    classes it is the mean over the one-hot columns. A larger score is better. Compare
    the scores of several backbones on the same examples: the value alone says little,
    and it may be negative. Unlike the accuracy of a probe it needs no held-out
    examples, because the evidence already counts the cost of many features.

    As in the paper, features are not centered and the linear model has no bias. For a
    regression, standardize the labels.

    Args:
        features: Array of features, `(count, size)`. More axes are flattened.
        labels: Class numbers `(count,)` or one-hot rows. With `regression=True`,
            numbers `(count,)` or `(count, outputs)`.
        regression: Bool, whether labels are numbers. Defaults to `False`.

    Returns:
        A float.

    Raises:
        ValueError: If features or labels are not finite, do not match, or are all
            the same.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        rng = np.random.default_rng(0)
        labels = np.arange(200) % 4
        good = np.eye(4)[labels] + 0.3 * rng.normal(size=(200, 4))
        bad = rng.normal(size=(200, 4))
        assert kt.analysis.log_me(good, labels) > kt.analysis.log_me(bad, labels)
        ```

    Reference:
        You, Liu, Wang and Long 2021, LogME: Practical Assessment of Pre-trained Models
        for Transfer Learning, arXiv:2102.11005, equation 2.
    """
    one_of("regression", regression, (True, False))
    features = as_features("features", features, least=2)
    columns = _columns(labels, len(features), regression)
    if np.abs(features).max() < LEAST:
        raise ValueError(
            f"All `features` are 0, or smaller than {LEAST:g}. Check the backbone and "
            "its inputs."
        )
    eigenvalues, squares = _spectrum(features, columns)
    total = np.square(columns).sum(0)
    rest = np.maximum(total - squares.sum(0), LEAST_NOISE * total)
    evidence = [
        _evidence(eigenvalues, of_column, noise, len(features))
        for of_column, noise in zip(squares.T, rest, strict=True)
    ]
    return float(np.mean(evidence))


def _columns(labels: Any, count: int, regression: bool) -> np.ndarray:
    """Return the labels as columns of numbers, `(count, outputs)`."""
    if not regression:
        indices = class_indices(labels, count)
        return np.eye(indices.max() + 1)[indices]
    array = np.asarray(labels)
    columns = as_features("labels", array.reshape(len(array), -1) if array.ndim else [])
    if len(columns) != count:
        raise ValueError(
            f"There are {len(columns)} labels for {count} examples. Pass one row for "
            "each example, in the same order."
        )
    constant = np.flatnonzero(np.ptp(columns, axis=0) == 0)
    if constant.size:
        raise ValueError(
            f"All labels are {columns[0, constant[0]]:.4g} in output {constant[0]}, so "
            "no score can tell features apart. Leave out this output."
        )
    return columns


def _spectrum(
    features: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues of `F Fᵀ`, and squared labels in its eigenvectors."""
    count, size = features.shape
    small = features @ features.T if count <= size else features.T @ features
    eigenvalues, vectors = np.linalg.eigh(small)
    kept = eigenvalues > eigenvalues[-1] * max(count, size) * np.finfo("float64").eps
    eigenvalues, vectors = eigenvalues[kept], vectors[:, kept]
    if count <= size:
        return eigenvalues, np.square(vectors.T @ columns)
    projected = np.square(vectors.T @ (features.T @ columns))
    return eigenvalues, projected / eigenvalues[:, None]


def _evidence(
    eigenvalues: np.ndarray, squares: np.ndarray, rest: float, count: int
) -> float:
    """Return the largest log evidence per example, over both variances.

    With the ratio `λ` of the precisions of weights and noise, `y` is Gaussian with the
    covariance `σ² (1 + F Fᵀ / λ)`. The best `σ²` has a closed form, so the search has
    one dimension.
    """
    low, high = np.log(eigenvalues[0] / RANGE), np.log(eigenvalues[-1] * RANGE)
    for _ in range(ROUNDS):
        grid = np.linspace(low, high, POINTS)
        ratios = np.exp(grid)[:, None]
        noise = ((squares * ratios / (ratios + eigenvalues)).sum(1) + rest) / count
        spread = np.log1p(eigenvalues / ratios).sum(1) / count
        evidence = -0.5 * (np.log(2 * np.pi * noise) + 1 + spread)
        best = evidence.argmax()
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, POINTS - 1)]
    return evidence[best]
