"""The level of each look at a stream, so that all looks together keep one level."""

from __future__ import annotations

import math


def level_of_look(alpha: float, look: int) -> float:
    """Return the level of look number `look`: `alpha * 6 / (π² look²)`.

    The levels of all looks, however many there are, add up to `alpha`. With each test
    at its level, the probability of any false alarm is therefore at most `alpha`
    (Bonferroni's inequality, which also holds for tests that depend on each other).

    Args:
        alpha: Probability of a false alarm in all looks together.
        look: Number of the look, from 1.
    """
    return alpha * 6 / (math.pi * look) ** 2
