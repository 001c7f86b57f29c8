"""One-sided paired tests: whether one model is worse than another on the same data."""

from __future__ import annotations

import numpy as np


def probability_of_worse(before: np.ndarray, after: np.ndarray) -> float:
    """Return the p-value of "`after` is not worse than `before`", example by example.

    For errors of 0 and 1 it is the exact test of McNemar, and for others the signed
    rank test of Wilcoxon. A small value says that `after` is worse.

    Args:
        before: Array of the errors of one model, by example.
        after: Those of the other model.
    """
    from scipy.stats import binomtest
    from scipy.stats import wilcoxon

    difference = after - before
    worse, better = int((difference > 0).sum()), int((difference < 0).sum())
    if not worse + better:
        return 1.0
    if np.isin([before, after], (0, 1)).all():
        found = binomtest(worse, worse + better, alternative="greater")
    else:
        found = wilcoxon(difference, alternative="greater")
    return float(found.pvalue)
