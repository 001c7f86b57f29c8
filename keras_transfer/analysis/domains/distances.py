"""Distances between two domains, from a classifier, a kernel and two Gaussians."""

from __future__ import annotations

from typing import Any
from typing import NamedTuple

import numpy as np

from keras_transfer._arguments import whole_number
from keras_transfer.analysis.arrays import as_domains
from keras_transfer.analysis.domains.classifier import balanced_error
from keras_transfer.analysis.domains.classifier import FOLDS
from keras_transfer.analysis.domains.classifier import log_density_ratios

LARGEST = 10_000  # examples of both domains; the kernel then takes about 2.8 GB


class MMDTest(NamedTuple):
    """The squared discrepancy between two samples, and its p-value."""

    mmd2: float
    p_value: float


def proxy_a_distance(source: Any, target: Any, *, seed: int = 0) -> float:
    """Return how well a linear classifier separates the two domains, from 0 to 2.

    The proxy A-distance is `2 (1 - 2 error)`, where `error` is the error rate of a
    domain classifier on held-out examples. The distance is 0 if the classifier is no
    better than chance, and 2 if it makes no errors. Compute the distance on the
    features of a network before adaptation, to see whether there is a gap to align,
    and again after adaptation. A large distance is not always harmful, because the
    classifier can use features that do not matter for the label.

    The classifier is scikit-learn's logistic regression on standardized features,
    cross-validated in five folds. The error is the mean of the error rates of the two
    domains, so the domains may have different sizes. Negative values, which can occur
    by chance, are returned as 0.

    Args:
        source: Array of source features, `(count, size)`, with at least 5 examples.
            More axes are flattened.
        target: Array of target features. Only the count may differ from `source`.
        seed: Integer, the seed of the folds. Defaults to 0.

    Returns:
        A float from 0 to 2.

    Raises:
        ValueError: If the features are too few, not finite or of different sizes.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        rng = np.random.default_rng(0)
        source, target = rng.normal(size=(2, 200, 8))
        near = kt.analysis.proxy_a_distance(source, target)
        far = kt.analysis.proxy_a_distance(source, target + 3)
        assert near < 0.5 < 1.9 < far
        ```

    Reference:
        Ben-David, Blitzer, Crammer and Pereira 2007, Analysis of Representations for
        Domain Adaptation, NeurIPS. Ganin et al. 2016, Domain-Adversarial Training of
        Neural Networks, arXiv:1505.07818, section 5.1.5.
    """
    source, target = as_domains(source, target, least=FOLDS)
    error = balanced_error(*log_density_ratios(source, target, seed))
    return max(0.0, 2 * (1 - 2 * error))


def mmd_test(
    source: Any, target: Any, *, permutations: int = 500, seed: int = 0
) -> MMDTest:
    """Return the squared maximum mean discrepancy of two domains and its p-value.

    `mmd2 = E k(s, s') + E k(t, t') - 2 E k(s, t)` is the unbiased estimate over pairs
    of different examples. It can be below 0 if the domains agree. The kernel is
    `k(x, y) = exp(-|x - y|² / (2 σ²))`, where σ is the median distance between two
    examples of either domain.

    The p-value comes from a permutation test, which reassigns the examples to the
    domains at random. It is the share of assignments with a discrepancy at least as
    large as `mmd2`. The given assignment counts as one of them. The p-value is small
    if the domains differ. The test assumes independent examples, so do not pass
    augmented copies.

    Args:
        source: Array of source features, `(count, size)`, with at least 2 examples.
            More axes are flattened. The test takes about 28 n² bytes for n examples of
            both domains together.
        target: Array of target features. Only the count may differ from `source`.
        permutations: Integer of 1 or more, the number of random assignments. The
            p-value is at least `1 / (permutations + 1)`. Defaults to 500.
        seed: Integer, the seed of the permutations. Defaults to 0.

    Returns:
        A named tuple `(mmd2, p_value)`.

    Raises:
        ValueError: If the features are too few, not finite or of different sizes, if
            there are more than 10,000 examples together, or if `permutations` is not a
            whole number above 0.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        rng = np.random.default_rng(0)
        source, target = rng.normal(size=(2, 60, 4))
        assert kt.analysis.mmd_test(source, target).p_value > 0.05
        assert kt.analysis.mmd_test(source, target + 1).p_value < 0.01
        ```

    Reference:
        Gretton, Borgwardt, Rasch, Schölkopf and Smola 2012, A Kernel Two-Sample Test,
        Journal of Machine Learning Research 13.
    """
    source, target = as_domains(source, target, least=2)
    whole_number("permutations", permutations)
    count, first = len(source) + len(target), len(source)
    if count > LARGEST:
        raise ValueError(
            f"The domains have {count} examples together, and the kernel between all "
            f"of them would take {28e-9 * count**2:.1f} GB. Pass a random sample of at "
            f"most {LARGEST} examples."
        )
    kernel = gaussian_kernel(np.concatenate([source, target]))
    rng = np.random.default_rng(seed)
    # Column 0 is the given assignment. The other columns permute the domains.
    chosen = np.zeros((count, permutations + 1))
    chosen[:first, 0] = 1
    chosen[:, 1:] = rng.permuted(np.tile(chosen[:, :1], permutations), axis=0)
    found = unbiased_mmd2(kernel, chosen, first)
    # Rounding can make the same assignment give a slightly different value.
    larger = int(np.count_nonzero(found[1:] >= found[0] - 1e-12))
    return MMDTest(float(found[0]), (1 + larger) / (1 + permutations))


def frechet_distance(source: Any, target: Any) -> float:
    """Return the squared Fréchet distance between Gaussians fitted to the two domains.

    The distance is `|μ_s - μ_t|² + tr(C_s + C_t - 2 (C_s C_t)^½)`, where μ is the mean
    and C the covariance of the features. This is the squared Wasserstein-2 distance
    between the two Gaussians. With Inception features of images it is the FID. With
    the features of your backbone it measures the gap between the domains in the feature
    space of the backbone. The distance grows with the scale of the features, and is
    overestimated for few examples. Only compare values from the same network and the
    same number of examples.

    With `C = Rᵀ R`, the trace of the root is computed as the sum of the singular values
    of `R_s R_tᵀ`. This sum is real and not negative, even if a covariance is singular.

    Args:
        source: Array of source features, `(count, size)`, with at least 2 examples.
            More axes are flattened.
        target: Array of target features. Only the count may differ from `source`.

    Returns:
        A float of at least 0, in squared feature units.

    Raises:
        ValueError: If the features are too few, not finite or of different sizes.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        source = np.array([[0.0, 0.0], [2.0, 0.0]])
        assert kt.analysis.frechet_distance(source, source + [3.0, 4.0]) == 25.0
        ```

    Reference:
        Heusel, Ramsauer, Unterthiner, Nessler and Hochreiter 2017, GANs Trained by a
        Two Time-Scale Update Rule Converge to a Local Nash Equilibrium,
        arXiv:1706.08500.
    """
    source, target = as_domains(source, target, least=2)
    means = source.mean(0) - target.mean(0)
    roots = [_root(source), _root(target)]
    spreads = sum(float(np.square(root).sum()) for root in roots)
    shared = np.linalg.norm(roots[0] @ roots[1].T, "nuc")
    return max(0.0, float(means @ means + spreads - 2 * shared))


def gaussian_kernel(rows: np.ndarray) -> np.ndarray:
    """Return the Gaussian kernel between all rows, with 0 on the diagonal."""
    rows = rows - rows.mean(0)
    rows /= np.abs(rows).max() or 1  # dividing by the median cancels this scale
    squares = np.square(rows).sum(1)
    distances = squares[:, None] + squares - 2 * rows @ rows.T
    np.maximum(distances, 0, out=distances)
    pairs = distances[np.triu_indices(len(rows), 1)]
    # If most pairs coincide, the median is 0 and cannot be a divisor.
    median = np.median(pairs) or pairs.mean() or 1.0
    kernel = np.exp(distances / (-2 * median))
    np.fill_diagonal(kernel, 0)
    return kernel


def unbiased_mmd2(kernel: np.ndarray, chosen: np.ndarray, size: int) -> np.ndarray:
    """Return the unbiased MMD² for each column of `chosen`, which is 1 for source."""
    other = len(kernel) - size
    totals = kernel.sum(1)
    within = np.einsum("ij,ij->j", chosen, kernel @ chosen)
    across = totals @ chosen - within
    rest = totals.sum() - within - 2 * across
    return (
        within / (size * (size - 1))
        + rest / (other * (other - 1))
        - 2 * across / (size * other)
    )


def _root(rows: np.ndarray) -> np.ndarray:
    """Return R such that the covariance is `Rᵀ R`. R has at most `size` rows."""
    centered = (rows - rows.mean(0)) / np.sqrt(len(rows) - 1)
    return np.linalg.qr(centered, mode="r")
