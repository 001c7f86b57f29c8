"""Differences between the scores of two ways to train, with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_transfer.fine_tuning.pilot.scores import Score
from keras_transfer.fine_tuning.pilot.scores import standard_error

LEVEL = 0.95


class Difference(NamedTuple):
    """A mean difference, positive if the first is better, and its interval.

    `low` and `high` are None if there is only one seed or one test example.
    """

    mean: float
    low: float | None
    high: float | None


def difference(
    scores: Sequence[Score], others: Sequence[Score], level: float = LEVEL
) -> Difference:
    """Return the difference of two ways to train, paired by seed and by test example.

    The variance has two parts: of the test examples, with the mean over seeds, and of
    the seeds. The interval is that of Student's t with the degrees of freedom of Welch
    and Satterthwaite.

    Args:
        scores: The scores of one way, for each seed, on the same groups of examples.
        others: Those of the other way, for the same seeds.
        level: The probability of the interval. Defaults to 0.95.
    """
    gains = np.array([a.gain(b)[0] for a, b in zip(scores, others, strict=True)])
    mean, seeds = float(gains.mean()), len(gains)
    if seeds < 2 or len(scores[0].sizes) < 2:
        return Difference(mean, None, None)
    by_group = np.mean(
        [a.values - b.values for a, b in zip(scores, others, strict=True)], axis=0
    )
    error = standard_error(by_group, scores[0].sizes)
    parts = np.array([error**2, gains.var(ddof=1) / seeds])
    degrees = np.array([len(by_group) - 1, seeds - 1])
    if not parts.sum():
        return Difference(mean, mean, mean)
    from scipy.stats import t

    freedom = parts.sum() ** 2 / (parts**2 / degrees).sum()
    half = float(t.ppf(0.5 + level / 2, freedom) * np.sqrt(parts.sum()))
    return Difference(mean, mean - half, mean + half)
