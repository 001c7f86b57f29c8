"""The H-score: how far the classes are apart, relative to the spread of features."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer._arguments import one_of
from keras_transfer.analysis.arrays import as_features
from keras_transfer.analysis.transferability.classes import class_indices


def h_score(features: Any, labels: Any, *, shrinkage: bool = True) -> float:
    """Return the H-score, the spread of class means relative to that of all features.

    The H-score is `tr(cov(f)⁻¹ cov(E[f | y]))`. It is from 0 to the number of classes
    less 1, and larger is better. With fewer examples than ten times the features, the
    covariance is a poor estimate, and the plain H-score rises with the number of
    features even if they are noise. The regularized H-score shrinks the covariance to a
    multiple of the identity, with the strength `α` of Ledoit and Wolf, and scales the
    result by `1 - α`.

    Args:
        features: Array of features, `(count, size)`. More axes are flattened.
        labels: Class numbers `(count,)` or one-hot rows.
        shrinkage: Bool, whether to regularize. Defaults to `True`.

    Returns:
        A float.

    Raises:
        ValueError: If features are not finite or are all the same, or if labels do not
            match or are of one class.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        rng = np.random.default_rng(0)
        labels = np.arange(200) % 4
        good = np.eye(4)[labels] + 0.3 * rng.normal(size=(200, 4))
        bad = rng.normal(size=(200, 4))
        assert kt.analysis.h_score(good, labels) > 2 > kt.analysis.h_score(bad, labels)
        ```

    Reference:
        Bao et al. 2019, An Information-Theoretic Approach to Transferability in Task
        Transfer Learning, ICIP. Ibrahim, Ponomareva and Mazumder 2022, Newer is not
        always better: Rethinking transferability metrics, their peculiarities,
        stability and performance, arXiv:2110.06893 (regularized). Ledoit and Wolf 2004,
        A well-conditioned estimator for large-dimensional covariance matrices.
    """
    from sklearn.covariance import LedoitWolf

    one_of("shrinkage", shrinkage, (True, False))
    features = as_features("features", features, least=3 if shrinkage else 2)
    indices = class_indices(labels, len(features))
    # The H-score does not depend on the scale, whose squares could be 0 or infinite.
    # A feature that is the same for each example may differ from its mean by rounding.
    features = np.where(np.ptp(features, axis=0) > 0, features - features.mean(0), 0)
    features /= np.abs(features).max() or 1.0
    if not features.any():
        raise ValueError(
            "All `features` are the same for each example. Check the backbone and its "
            "inputs."
        )
    sums = np.zeros((indices.max() + 1, features.shape[1]))
    np.add.at(sums, indices, features)
    # The covariance of the class means is `means.T @ means`.
    counts = np.bincount(indices)[:, None]
    means = sums / np.sqrt(counts * (len(features) - 1))
    if shrinkage:
        fitted = LedoitWolf(assume_centered=True, store_precision=False).fit(features)
        solved = np.linalg.solve(fitted.covariance_, means.T)
        return float((1 - fitted.shrinkage_) * np.sum(means * solved.T))
    # By the singular values of the features: directions without spread do not count.
    _, spread, axes = np.linalg.svd(features, full_matrices=False)
    kept = spread > spread[0] * max(features.shape) * np.finfo("float64").eps
    scaled = means @ axes[kept].T * np.sqrt(len(features) - 1) / spread[kept]
    return float(np.square(scaled).sum())
