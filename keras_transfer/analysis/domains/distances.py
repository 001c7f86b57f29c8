"""How far two domains are: by a classifier, a kernel, and two Gaussians."""

from __future__ import annotations

from typing import Any
from typing import NamedTuple

import numpy as np

from keras_transfer._arguments import whole_number
from keras_transfer.analysis.domains.arrays import as_domains
from keras_transfer.analysis.domains.classifier import balanced_error
from keras_transfer.analysis.domains.classifier import FOLDS
from keras_transfer.analysis.domains.classifier import log_density_ratios

LARGEST = 10_000  # examples of both domains: kernels of about 2.8 GB


class MMDTest(NamedTuple):
    """The squared discrepancy of two samples and its p-value."""

    mmd2: float
    p_value: float


def proxy_a_distance(source: Any, target: Any, *, seed: int = 0) -> float:
    """Return how well a linear classifier tells the domains apart, from 0 to 2.

    The proxy of the A-distance is `2 (1 - 2 error)`, with the error of a classifier of
    the domains on examples that it has not seen. It is 0 where the classifier does
    no better than chance and 2 where it never errs. Take it of the features of a
    network before adapting (is there anything to align?) and after. A domain that can
    be told apart need not be harmful: the classifier may look at what the label does
    not depend on.

    The classifier is scikit-learn's logistic regression on standardized features, in
    five folds. The error is the mean of both domains' errors, so that sizes that
    differ do not matter. Less than 0, which chance gives at times, is returned as 0.

    Args:
        source: Array of features, `(count, size)`, at least 5 examples. More axes are
            flattened.
        target: The same of the target domain; the count may differ.
        seed: Seed of the folds. Default 0.

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
    """Return the maximum mean discrepancy of two domains and its p-value.

    `mmd2 = E k(s, s') + E k(t, t') - 2 E k(s, t)` is the unbiased estimate over pairs
    of different examples, and so may be below 0 where the domains agree. The kernel is
    `k(x, y) = exp(-|x - y|² / (2 σ²))` with σ the median distance of two examples of
    either domain. The p-value is the share of random exchanges of the domains' examples
    whose discrepancy is at least as large, the one seen included: small if the domains
    differ. It supposes independent examples, so take no augmented copies.

    Args:
        source: Array of features, `(count, size)`, at least 2 examples. More axes are
            flattened. Memory is about 28 (count of both)² bytes.
        target: The same of the target domain; the count may differ.
        permutations: Number of exchanges. The p-value is at least
            `1 / (permutations + 1)`. Default 500.
        seed: Seed of the exchanges. Default 0.

    Returns:
        A named tuple `(mmd2, p_value)`.

    Raises:
        ValueError: If the features are too few, not finite or of different sizes, are
            more than 10,000 together, or `permutations` is no whole number above 0.

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
            f"most {LARGEST}."
        )
    kernel = _kernel(np.concatenate([source, target]))
    rng = np.random.default_rng(seed)
    # Column 0 is the sample as it is; each other one exchanges the domains at random.
    chosen = np.zeros((count, permutations + 1))
    chosen[:first, 0] = 1
    chosen[:, 1:] = rng.permuted(np.tile(chosen[:, :1], permutations), axis=0)
    found = _discrepancies(kernel, chosen, first)
    # The same exchange may differ by rounding.
    larger = int(np.count_nonzero(found[1:] >= found[0] - 1e-12))
    return MMDTest(float(found[0]), (1 + larger) / (1 + permutations))


def frechet_distance(source: Any, target: Any) -> float:
    """Return the squared Fréchet distance of two Gaussians fitted to the domains.

    `|μ_s - μ_t|² + tr(C_s + C_t - 2 (C_s C_t)^½)`, with means μ and covariances C of
    the features: the squared Wasserstein-2 distance of the two Gaussians. With
    Inception features of images it is the FID; with the features of your backbone it
    says how far the domains are for it. It grows with the scale of the features and
    is too large for few examples, so compare values of the same network and count
    only.

    The trace of the root is taken as the sum of the singular values of `R_s R_tᵀ` with
    `C = Rᵀ R`: real and never negative, also if a covariance is singular.

    Args:
        source: Array of features, `(count, size)`, at least 2 examples. More axes are
            flattened.
        target: The same of the target domain; the count may differ.

    Returns:
        A float of at least 0, in squared units of the features.

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


def _kernel(rows: np.ndarray) -> np.ndarray:
    """Return the Gaussian kernel between different rows, and 0 for the same."""
    rows = rows - rows.mean(0)
    rows /= np.abs(rows).max() or 1  # the median scales it all again
    squares = np.square(rows).sum(1)
    distances = squares[:, None] + squares - 2 * rows @ rows.T
    np.maximum(distances, 0, out=distances)
    pairs = distances[np.triu_indices(len(rows), 1)]
    # Where most pairs coincide the median would divide by 0.
    median = np.median(pairs) or pairs.mean() or 1.0
    kernel = np.exp(distances / (-2 * median))
    np.fill_diagonal(kernel, 0)
    return kernel


def _discrepancies(kernel: np.ndarray, chosen: np.ndarray, size: int) -> np.ndarray:
    """Return the unbiased MMD² for each column of `chosen`, the source's indicator."""
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
    """Return R of at most `size` rows, with the covariance `Rᵀ R`."""
    centered = (rows - rows.mean(0)) / np.sqrt(len(rows) - 1)
    return np.linalg.qr(centered, mode="r")
