"""Statistics of paired scores: shifts, flips, and their tests."""

from __future__ import annotations

import numpy as np

LEVEL = 0.95
NOISE = 1e-6  # share of the largest score; smaller shifts are rounding of float32


def shifts_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return second - first, with 0 for what is only rounding."""
    shifts = second - first
    least = NOISE * max(1.0, np.abs(first).max(), np.abs(second).max())
    return np.where(np.abs(shifts) < least, 0.0, shifts)


def shift_facts(first: np.ndarray, second: np.ndarray) -> dict:
    """Return the mean shift of scores from the first to the second text, with tests.

    Args:
        first: The scores of the first texts, `(pairs,)`.
        second: The scores of the second texts.

    Returns:
        A dict that JSON can store. A test that is not defined has None: of one pair, or
        of shifts that are all equal (t-test) or all 0 (Wilcoxon).
    """
    from scipy import stats

    shifts = shifts_of(first, second)
    mean, count = float(shifts.mean()), len(shifts)
    facts = {
        "first": float(first.mean()),
        "second": float(second.mean()),
        "shift": [mean, None, None],
        "larger": int((shifts > 0).sum()),
        "smaller": int((shifts < 0).sum()),
        "t_test": None,
        "wilcoxon": None,
        "shifts": shifts.tolist(),
    }
    if count > 1 and np.ptp(shifts) > 1e-12:
        error = float(shifts.std(ddof=1)) / np.sqrt(count)
        reach = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * error
        facts["shift"] = [mean, float(mean - reach), float(mean + reach)]
        facts["t_test"] = float(stats.ttest_1samp(shifts, 0.0).pvalue)
    moved = shifts[shifts != 0]
    if len(moved) > 1:
        facts["wilcoxon"] = float(stats.wilcoxon(moved).pvalue)
    return facts


def flip_facts(first: np.ndarray, second: np.ndarray) -> dict:
    """Return how many predicted classes differ, with the Wilson interval of the share.

    Args:
        first: The predicted classes of the first texts, `(pairs,)`.
        second: Those of the second texts.
    """
    from scipy.stats import binomtest

    count, pairs = int((first != second).sum()), len(first)
    ends = binomtest(count, pairs).proportion_ci(LEVEL, "wilson")
    # Rounding can leave the share of 0 or of all just outside.
    low, high = max(float(ends.low), 0.0), min(float(ends.high), 1.0)
    return {"count": count, "share": [count / pairs, low, high]}


def toward_facts(first: np.ndarray, second: np.ndarray) -> dict:
    """Return how often only one text has a class, with McNemar's exact test.

    Args:
        first: Whether each first text is predicted to have the class.
        second: The same for the second texts.
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    both = only_first + only_second
    p = float(binomtest(only_first, both, 0.5).pvalue) if both else None
    return {"only_first": only_first, "only_second": only_second, "mcnemar": p}
