"""The measures of calibration, on probabilities and labels as arrays."""

from __future__ import annotations

import numpy as np

TINY = 1e-12  # a probability of 0 would have an infinite loss


def reliability(confidences: np.ndarray, hits: np.ndarray, bins: int) -> list[dict]:
    """Return bins of equal width: their range, examples, mean confidence, accuracy.

    A bin contains its upper end. The values of an empty bin are None.
    """
    places = np.clip(np.ceil(confidences * bins).astype(int) - 1, 0, bins - 1)
    found = []
    for place in range(bins):
        inside = places == place
        count = int(inside.sum())
        found.append(
            {
                "low": place / bins,
                "high": (place + 1) / bins,
                "examples": count,
                "confidence": float(confidences[inside].mean()) if count else None,
                "accuracy": float(hits[inside].mean()) if count else None,
            }
        )
    return found


def expected_error(confidences: np.ndarray, hits: np.ndarray, bins: int) -> float:
    """Return the expected calibration error over bins of equal width."""
    count = len(confidences)
    return sum(
        row["examples"] / count * abs(row["accuracy"] - row["confidence"])
        for row in reliability(confidences, hits, bins)
        if row["examples"]
    )


def square_error(
    confidences: np.ndarray, hits: np.ndarray, bins: int, *, debiased: bool
) -> float:
    """Return the mean squared calibration error over bins of equal counts.

    The plain estimate is too large: noise in the accuracy of a bin counts as an error.
    The debiased estimate subtracts the estimated variance, `a (1 - a) / (n - 1)` for
    the accuracy a of n examples. It can be negative.
    """
    order, total = np.argsort(confidences, kind="stable"), 0.0
    for part in np.array_split(order, bins):
        if not len(part):
            continue
        accuracy, size = hits[part].mean(), len(part)
        square = (confidences[part].mean() - accuracy) ** 2
        if debiased:
            noise = accuracy * (1 - accuracy) / (size - 1) if size > 1 else square
            square = square - noise
        total += size / len(order) * square
    return float(total)


def log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the negative log likelihood of each example."""
    own = probabilities[np.arange(len(labels)), labels]
    return -np.log(np.maximum(own, TINY))


def brier_scores(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the sum over the classes of squared differences, for each example."""
    right = np.eye(probabilities.shape[1])[labels]
    return np.square(probabilities - right).sum(1)
