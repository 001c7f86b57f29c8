"""Estimate the class shares of a batch without labels, from predictions and scores."""

from __future__ import annotations

import numpy as np

# The largest condition number of a confusion matrix whose inverse is used. Beyond it,
# errors of 1 % in the matrix can change the estimated shares completely.
CONDITION = 100.0
ITERATIONS = 1_000
TOLERANCE = 1e-5  # change of the shares at which expectation maximization ends


def shares_by_confusion(joint: np.ndarray, predicted: np.ndarray) -> np.ndarray | None:
    """Return class shares from a confusion matrix, or None if it cannot tell them.

    Label shift means that only `p(y)` changes and `p(x | y)` does not. The shares `q`
    of the batch then solve `A q = predicted`, where column `y` of `A` has the shares of
    the predictions for examples of the class `y`. The solution of least squares with
    shares of at least 0 is scaled to the sum 1. This is BBSE of Lipton et al. 2018
    with weights `w = q / p`.

    Args:
        joint: Counts `(classes, classes)` of the labeled reference, with a row for each
            predicted and a column for each true class.
        predicted: The shares of the predictions in the batch.

    Returns:
        The shares, or None if a class has no labels or if the condition number of the
        matrix is above 100.
    """
    from scipy import optimize

    counts = joint.sum(0)
    if not counts.all():
        return None
    rates = joint / counts
    if np.linalg.cond(rates) > CONDITION:
        return None
    found, _ = optimize.nnls(rates, predicted)
    return found / found.sum()


def shares_by_scores(scores: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return class shares of a batch by expectation maximization (Saerens et al. 2002).

    Each step weights the scores by `q / p`, scales each row to the sum 1 again, and
    takes the mean as the new `q`. The likelihood of the batch grows until the steps are
    small. The scores must be calibrated for the shares `p`.

    Args:
        scores: Probabilities `(count, classes)` of the batch.
        shares: The class shares `p` for which the scores are probabilities.
    """
    known = np.maximum(shares, 1e-9)
    found = known / known.sum()
    for _ in range(ITERATIONS):
        weighted = scores * (found / known)
        weighted /= np.maximum(weighted.sum(1, keepdims=True), 1e-300)
        last, found = found, weighted.mean(0)
        if np.abs(found - last).max() < TOLERANCE:
            break
    return found / found.sum()
