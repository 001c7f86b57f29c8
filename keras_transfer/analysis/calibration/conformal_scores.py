"""The scores of conformal sets: how unusual a class is for an example."""

from __future__ import annotations

import math

import numpy as np


def lac_scores(probabilities: np.ndarray) -> np.ndarray:
    """Return `1 - p` for each class."""
    return 1 - probabilities


def adaptive_scores(
    probabilities: np.ndarray, draws: np.ndarray, penalty: float, free_classes: int
) -> np.ndarray:
    """Return the randomized scores of APS and RAPS for each class.

    With the classes in the order of falling probability, the score of a class of
    probability p and rank o, from 1, is

        sum of the larger probabilities + u p + penalty * max(0, o - free_classes)

    Args:
        probabilities: Array `(examples, classes)`.
        draws: Array `(examples,)` of u, uniform from 0 to 1.
        penalty: Number of 0 or more.
        free_classes: Number of ranks without a penalty.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ordered = np.take_along_axis(probabilities, order, axis=1)
    larger = ordered.cumsum(1) - ordered
    ranks = np.arange(1, probabilities.shape[1] + 1)
    penalties = penalty * np.maximum(0, ranks - free_classes)
    scores = np.empty_like(ordered)
    np.put_along_axis(
        scores, order, larger + draws[:, None] * ordered + penalties, axis=1
    )
    return scores


def place_of_quantile(count: int, coverage: float) -> int:
    """Return the rank `ceil((n + 1) coverage)` of the score that bounds the sets.

    Raises:
        ValueError: If this is more than n.
    """
    place = math.ceil((count + 1) * coverage - 1e-9)  # 10 * 0.7 is above 7
    if place > count:
        least = math.ceil(coverage / (1 - coverage) - 1e-9)
        raise ValueError(
            f"coverage={coverage} needs at least {least} examples, but `data` has "
            f"{count}. Pass more held-out examples, or ask for a lower coverage. No "
            "set except that of all classes has this coverage for fewer."
        )
    return place
