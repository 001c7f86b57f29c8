"""Shares of tasks in a mixture: in proportion to their examples, or more even."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def task_rates(
    sizes: Sequence[int], temperature: float, limit: int | None = None
) -> np.ndarray:
    """Return the share of each task, `min(n_i, limit)^(1 / temperature)` over the sum.

    Args:
        sizes: Number of examples of each task.
        temperature: 1 for shares in proportion to the sizes, infinity for equal shares.
        limit: Size above which a task counts no more. None for no limit.
    """
    counted = np.minimum(np.asarray(sizes, "float64"), limit or np.inf)
    # In logarithms, because n^(1 / temperature) overflows for low temperatures.
    powers = np.exp((np.log(counted) - np.log(counted.max())) / temperature)
    return powers / powers.sum()


def task_counts(rates: np.ndarray, total: int) -> np.ndarray:
    """Return how many of `total` examples each task has, by largest remainders."""
    exact = rates * total
    counts = np.floor(exact).astype(int)
    missing = total - counts.sum()
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return counts


class TaskOrder:
    """The examples of each epoch of a mixture, the same for the same seed.

    A task goes through all its examples before one returns, also across epochs.

    Args:
        sizes: Number of examples of each task.
        counts: Number of examples of each task in an epoch.
        seed: Whole number.
    """

    def __init__(self, sizes: Sequence[int], counts: Sequence[int], seed: int):
        self.sizes = list(map(int, sizes))
        self.counts = list(map(int, counts))
        self.seed = seed

    def epoch(self, number: int) -> np.ndarray:
        """Return the task and the example of each row, int `(rows, 2)`."""
        pairs = [
            np.stack([np.full(count, task), self._examples(task, number)], 1)
            for task, count in enumerate(self.counts)
        ]
        rows = np.concatenate(pairs)
        np.random.default_rng((self.seed, number)).shuffle(rows)
        return rows

    def _examples(self, task: int, epoch: int) -> np.ndarray:
        size, count = self.sizes[task], self.counts[task]
        places = epoch * count + np.arange(count)
        found = np.empty(count, int)
        for number in np.unique(places // size):
            random = np.random.default_rng((self.seed, task, int(number), 1))
            chosen = places // size == number
            found[chosen] = random.permutation(size)[places[chosen] % size]
        return found
