"""Bootstrap intervals of measures by group, and of their largest differences."""

from __future__ import annotations

import numpy as np

DRAWS = 1_000
SEED = 0
LEVEL = 0.95
PART = 100  # draws that are made at once, to limit memory


def resample(
    columns: np.ndarray, index: np.ndarray, num_groups: int, draws: int = DRAWS
) -> np.ndarray:
    """Return means of columns in bootstrap samples, `(groups, draws, columns)`.

    The examples of each group are drawn with replacement, so each group keeps its size.
    All columns of an example are drawn together, so differences between two models are
    paired.

    Args:
        columns: Array `(examples, columns)`.
        index: The number of the group of each example.
        num_groups: Number of groups. Each has at least one example.
        draws: Number of bootstrap samples.
    """
    random = np.random.default_rng(SEED)
    found = np.empty((num_groups, draws, columns.shape[1]))
    for group in range(num_groups):
        # Equal rows are drawn by their number, which is exact and much faster.
        rows, counts = np.unique(columns[index == group], axis=0, return_counts=True)
        size = counts.sum()
        for start in range(0, draws, PART):
            part = min(PART, draws - start)
            drawn = random.multinomial(size, counts / size, part)
            found[group, start : start + part] = drawn @ rows / size
    return found


def interval(value: float, draws: np.ndarray) -> list[float | None]:
    """Return `[value, low, high]` with the percentile interval, for JSON.

    The value is None if it is not defined. The ends are None if they are not known:
    because all draws are equal, as for a rate of 0, or not half of them are defined.
    """
    if not np.isfinite(value):
        return [None, None, None]
    draws = draws[np.isfinite(draws)]
    if not draws.size or draws.size * 2 < DRAWS or np.ptp(draws) < 1e-12:
        return [float(value), None, None]
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return [float(value), float(low), float(high)]


def extremes(values: np.ndarray, large: np.ndarray) -> tuple[int, int] | None:
    """Return the numbers of the groups with the highest and the lowest value.

    Args:
        values: The value of each group, NaN if it is not defined.
        large: Whether each group is large enough.

    Returns:
        The two numbers; None if fewer than two groups are large and have a value.
    """
    places = np.flatnonzero(large & np.isfinite(values))
    if len(places) < 2:
        return None
    order = places[np.argsort(values[places], kind="stable")]
    return int(order[-1]), int(order[0])


def difference_of(
    values: np.ndarray, draws: np.ndarray, pair: tuple[int, int]
) -> tuple[float, np.ndarray]:
    """Return the difference between a pair of groups, and its draws."""
    high, low = pair
    return float(values[high] - values[low]), draws[high] - draws[low]


def ratio_of(
    values: np.ndarray, draws: np.ndarray, pair: tuple[int, int]
) -> list[float | None]:
    """Return the lowest value divided by the highest, with its interval."""
    high, low = pair
    if values[high] <= 0:
        return [None, None, None]
    above = np.where(draws[high] > 0, draws[high], np.nan)
    return interval(values[low] / values[high], draws[low] / above)
