"""Tests of two samples: Kolmogorov-Smirnov for each column, and MMD for all columns."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import numpy as np

from keras_transfer.analysis.domains.distances import gaussian_kernel
from keras_transfer.analysis.domains.distances import unbiased_mmd2

ROWS = 1_000  # of each sample in the kernel, which then takes 32 MB
EXCEEDANCES = 20  # permutations above the observed value after which the test stops
PERMUTATIONS = 20_000  # most permutations, some seconds for the largest kernel
BLOCK = 100  # permutations that are computed together


class Columns(NamedTuple):
    """The statistic and the p-value of each column."""

    statistics: np.ndarray
    p_values: np.ndarray

    @property
    def bonferroni(self) -> float:
        """The p-value that all columns agree: the smallest one times their number."""
        return min(1.0, float(self.p_values.min()) * len(self.p_values))


class Permuted(NamedTuple):
    """The squared discrepancy, its p-value, and the number of permutations."""

    mmd2: float
    p_value: float
    permutations: int


def ks_columns(reference: np.ndarray, batch: np.ndarray) -> Columns:
    """Return the two-sample Kolmogorov-Smirnov test of each column.

    The p-values are exact for samples without ties, except for those near 1. Ties make
    them larger.

    Args:
        reference: Array `(count, columns)`.
        batch: Array of the same number of columns.
    """
    from scipy import stats

    with warnings.catch_warnings():
        # For samples that agree, rounding can bring the exact p-value above 1. SciPy
        # then takes the asymptotic one, and warns.
        warnings.filterwarnings("ignore", "ks_2samp: Exact", RuntimeWarning)
        tests = [
            stats.ks_2samp(left, right)
            for left, right in zip(reference.T, batch.T, strict=True)
        ]
    return Columns(
        np.array([float(test.statistic) for test in tests]),
        np.array([float(test.pvalue) for test in tests]),
    )


def can_reach(level: float) -> bool:
    """Return whether a permutation test can have a p-value of at most `level`."""
    return level * (PERMUTATIONS + 1) >= 1


def permuted_mmd(
    reference: np.ndarray,
    batch: np.ndarray,
    level: float,
    rng: np.random.Generator,
) -> Permuted:
    """Return the unbiased MMD² of two samples, with a p-value that is exact at `level`.

    The permutations stop after the 20th one that gives at least the observed value.
    With `l` permutations until then the p-value is `20 / l`. If fewer than 20 do, it is
    `(g + 1) / (n + 1)` for `g` of all `n` permutations. Both are valid p-values
    (Besag and Clifford 1991), and samples that agree need few permutations.

    Args:
        reference: Array `(count, columns)`. A random part of 1,000 rows is used.
        batch: Array of the same number of columns, at least 2 rows, as above.
        level: The level that the p-value is compared with.
        rng: Generator of the parts and of the permutations.
    """
    left, right = part_of(reference, ROWS, rng), part_of(batch, ROWS, rng)
    kernel = gaussian_kernel(np.concatenate([left, right]).astype("float64"))
    given = np.zeros((len(kernel), 1))
    given[: len(left)] = 1
    observed = float(unbiased_mmd2(kernel, given, len(left))[0])
    most = min(PERMUTATIONS, max(500, math.ceil(4 / level)))
    above, done = 0, 0
    while done < most:
        count = min(BLOCK, most - done)
        chosen = rng.permuted(np.tile(given, count), axis=0)
        # Rounding can make the same assignment give a slightly different value.
        found = unbiased_mmd2(kernel, chosen, len(left)) >= observed - 1e-12
        if above + found.sum() >= EXCEEDANCES:
            last = int(np.flatnonzero(found)[EXCEEDANCES - above - 1])
            done += last + 1
            return Permuted(observed, EXCEEDANCES / done, done)
        above, done = above + int(found.sum()), done + count
    return Permuted(observed, (above + 1) / (done + 1), done)


def part_of(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Return at most `most` rows, drawn without replacement and kept in order."""
    if len(rows) <= most:
        return rows
    return rows[np.sort(rng.choice(len(rows), most, replace=False))]
