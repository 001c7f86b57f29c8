"""The share of each group in a class, among labels and predictions (Zhao et al.)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_transfer.analysis.audit.fairness_intervals import interval


def share(counts: np.ndarray) -> np.ndarray:
    """Return the share of each group, along the first axis; NaN if all are 0."""
    total = counts.sum(0, keepdims=True)
    return np.where(total > 0, counts / np.where(total > 0, total, 1), np.nan)


def shares_of(rates: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the share of each group in a class, from its rate in each group.

    Args:
        rates: Rates `(groups,)`, or draws of them `(groups, draws)`.
        sizes: The number of examples of each group.
    """
    return share(rates * np.reshape(sizes, (-1, *[1] * (rates.ndim - 1))))


def label_shares(labels: np.ndarray, index: np.ndarray, size: int) -> np.ndarray:
    """Return the share of each group among the examples with `labels` of True."""
    return share(np.bincount(index[labels], minlength=size).astype("float64"))


def amplification(
    references: Sequence[np.ndarray],
    found: Sequence[np.ndarray],
    counted: Sequence[np.ndarray],
) -> np.ndarray:
    """Return the bias amplification of Zhao et al., for one value or for draws.

    The result is the mean over classes of the sum over groups of (share in the
    predictions - share in the reference labels).

    Args:
        references: For each class, the shares in the reference labels, `(groups,)` or
            `(groups, draws)`.
        found: The same for the predictions.
        counted: For each class, a bool array of the groups that the sum is over: those
            whose reference share is above 1 / groups.
    """
    sums = [
        (predicted - reference)[above].sum(0)
        for reference, predicted, above in zip(references, found, counted, strict=True)
    ]
    return np.mean(sums, axis=0)


def share_facts(values: np.ndarray, draws: np.ndarray) -> list[list[float | None]]:
    """Return `[share, low, high]` of each group."""
    return [interval(value, each) for value, each in zip(values, draws, strict=True)]
