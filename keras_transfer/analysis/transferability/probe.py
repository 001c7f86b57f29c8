"""The cross-validated accuracy of a linear probe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from keras_transfer.analysis.linear_solutions import solve_classes

FOLDS = 5


class Probe(NamedTuple):
    """The accuracy of a linear probe on held-out examples, and its standard error.

    The error is that of Agresti and Coull 1998, which is not 0 for an accuracy of 1.
    """

    accuracy: float
    error: float


def cross_validated_probe(features: np.ndarray, labels: np.ndarray, seed: int) -> Probe:
    """Return the accuracy of logistic regressions, each on the fold it has not seen.

    Args:
        features: Array of shape `(count, size)`.
        labels: Class indices of shape `(count,)`, with every class from 0.
        seed: Int, the seed of the folds.

    Raises:
        ValueError: If a class has fewer than two examples.
    """
    right = 0
    for train, test in folds_of(labels, seed):
        classes = labels.max() + 1
        found = solve_classes(features[train], labels[train], None, classes)
        predicted = (features[test] @ found.kernel + found.bias).argmax(1)
        right += np.count_nonzero(predicted == labels[test])
    return probe_of(right, len(labels))


def folds_of(labels: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Return the indices to train and to test on, for each stratified fold.

    Raises:
        ValueError: If a class has fewer than two examples.
    """
    from sklearn.model_selection import StratifiedKFold

    counts = np.bincount(labels)
    if counts.min() < 2:
        raise ValueError(
            f"{np.count_nonzero(counts < 2)} of {len(counts)} classes have a single "
            "example, so a probe cannot be trained and tested on them. Pass at least "
            "two examples of each class."
        )
    folds = StratifiedKFold(min(FOLDS, counts.min()), shuffle=True, random_state=seed)
    return folds.split(np.zeros(len(labels)), labels)


def probe_of(right: int, count: int) -> Probe:
    """Return the probe with `right` correct predictions of `count`."""
    # Two more of each outcome, so an accuracy of 1 has an error too.
    share = (right + 2) / (count + 4)
    error = float(np.sqrt(share * (1 - share) / (count + 4)))
    return Probe(right / count, error)
