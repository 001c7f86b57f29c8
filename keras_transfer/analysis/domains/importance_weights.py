"""Importance weights, which make the source match the target."""

from __future__ import annotations

import warnings
from typing import Any
from typing import NamedTuple

import numpy as np

from keras_transfer._arguments import positive
from keras_transfer.analysis.arrays import as_domains
from keras_transfer.analysis.domains.classifier import balanced_error
from keras_transfer.analysis.domains.classifier import FOLDS
from keras_transfer.analysis.domains.classifier import log_density_ratios

COLLAPSED = 0.1  # smallest effective sample size, as a share of the source
# If the classifier error is lower, the domains hardly overlap. For two Gaussians with
# this error, the true weights give an effective sample size below 1 % of the source.
# The estimated weights can give a larger size, so the error is checked as well.
SEPARABLE = 0.05
STEEPEST = 30.0  # largest logarithm of a ratio; the square of the ratio stays finite


class ImportanceWeights(NamedTuple):
    """Weights of mean 1, their effective sample size, and the unscaled ratios."""

    weights: np.ndarray
    effective_sample_size: float
    ratios: np.ndarray


class DomainOverlapWarning(UserWarning):
    """Warning that hardly any source examples are similar to target examples.

    Importance weights then depend on very few examples. Results computed with them are
    finite but not reliable. Features of a later layer or of an adapted model overlap
    more. `clip` bounds the weights, which adds some bias.

    Args:
        message: String, the text of the warning.

    Example:
        ```python
        import warnings

        import keras_transfer as kt

        warnings.simplefilter("error", kt.analysis.DomainOverlapWarning)
        warnings.simplefilter("default", kt.analysis.DomainOverlapWarning)
        ```

    Reference:
        Kong 1992, A Note on Importance Sampling using Standardized Weights, University
        of Chicago, Technical Report 348 (the effective sample size).
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)


def importance_weights(
    source: Any, target: Any, *, clip: float | None = None, seed: int = 0
) -> ImportanceWeights:
    """Return weights that make the source examples match the target distribution.

    Covariance shift means that the inputs of the two domains have different
    distributions, but an input has the same label in both. Then the mean of
    `w(x) loss` over the source is the loss on the target, with
    `w(x) = p_t(x) / p_s(x)`. A logistic regression predicts the probability `p` that an
    example is from the target, and `w = n_s / n_t · p / (1 - p)`. The regression is
    cross-validated in five folds, and the weight of an example comes from the fit that
    was not trained on this example. The log ratio is linear in the features, so pass
    features of a network and not pixels.

    Pass `weights` to `fit` as `sample_weight`. The effective sample size
    `(Σ w)² / Σ w²` is the number of unweighted examples whose mean has the same
    variance.

    Args:
        source: Array of source features, `(count, size)`, with at least 5 examples.
            More axes are flattened.
        target: Array of target features. Only the count may differ from `source`.
        clip: Float above 0, the largest ratio. Larger ratios are set to `clip` before
            the ratios are scaled to a mean of 1. Clipping lowers the variance and adds
            bias. Defaults to `None`, no bound.
        seed: Integer, the seed of the folds. Defaults to 0.

    Returns:
        A named tuple. `weights` has the shape `(source count,)` and a mean of 1,
        `effective_sample_size` is from 1 to the source count, and `ratios` are the
        weights before scaling. Pass `ratios` to `deep_embedded_validation`.

    Raises:
        ValueError: If the features are too few, not finite or of different sizes, or
            `clip` is not a finite number above 0.

    Warns:
        DomainOverlapWarning: If the effective sample size is below a tenth of the
            source, or the error rate of the classifier is below 5 %.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        rng = np.random.default_rng(0)
        source, target = rng.normal(size=(2, 400, 1)) + [[[0.0]], [[1.0]]]
        found = kt.analysis.importance_weights(source, target)
        mean = np.mean(found.weights * source[:, 0])  # the target's mean is 1
        assert abs(mean - 1) < 0.2 and 50 < found.effective_sample_size < 300
        ```

    Reference:
        Bickel, Brückner and Scheffer 2007, Discriminative Learning for Differing
        Training and Test Distributions, ICML. Shimodaira 2000, Improving Predictive
        Inference under Covariate Shift by Weighting the Log-Likelihood Function.
    """
    source, target = as_domains(source, target, least=FOLDS)
    if clip is not None:
        positive("clip", clip, "or None for no bound")
    logs, target_logs = log_density_ratios(source, target, seed)
    ratios = np.exp(np.clip(logs, -STEEPEST, STEEPEST))
    if clip is not None:
        ratios = np.minimum(ratios, clip)
    weights = ratios / ratios.mean()
    size = float(weights.sum() ** 2 / np.square(weights).sum())
    size = min(size, float(len(source)))  # rounding can exceed it for equal weights
    error = balanced_error(logs, target_logs)
    if error < SEPARABLE or size < COLLAPSED * len(source):
        warnings.warn(
            DomainOverlapWarning(
                "The domains hardly overlap. A linear domain classifier has an error "
                f"rate of {100 * error:.2g} %, and the effective sample size is "
                f"{size:.1f} of {len(source)} examples. Use features of a later layer "
                "or of an adapted model, or bound the ratios with `clip`."
            ),
            stacklevel=2,
        )
    return ImportanceWeights(weights, size, ratios)
