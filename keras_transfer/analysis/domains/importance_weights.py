"""Importance weights: source examples as likely as the target has them."""

from __future__ import annotations

import warnings
from typing import Any
from typing import NamedTuple

import numpy as np

from keras_transfer._arguments import positive
from keras_transfer.analysis.domains.arrays import as_domains
from keras_transfer.analysis.domains.classifier import balanced_error
from keras_transfer.analysis.domains.classifier import FOLDS
from keras_transfer.analysis.domains.classifier import log_density_ratios

COLLAPSED = 0.1  # share of the source that an effective sample size must reach
# Error of the classifier below which the domains hardly overlap: between two Gaussians
# that are told apart so well the weights are worth less than 1 % of the source, but the
# estimated ones need not show it.
SEPARABLE = 0.05
STEEPEST = 30.0  # largest logarithm of a ratio, so that its square is finite


class ImportanceWeights(NamedTuple):
    """Weights of mean 1, how many examples they are worth, and the raw ratios."""

    weights: np.ndarray
    effective_sample_size: float
    ratios: np.ndarray


class DomainOverlapWarning(UserWarning):
    """The source has hardly any example where the target is.

    Importance weights then hang on a few examples, or on none: what is computed with
    them is finite but says little. Features of a later layer, or of an adapted model,
    overlap more; `clip` bounds the weights for some bias.

    Args:
        message: What was found.

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
    """Return weights that make the source look like the target.

    Under covariance shift (the inputs are distributed otherwise, the label of an input
    is the same) the mean of `w(x) loss` over the source is the loss on the target,
    with `w(x) = p_t(x) / p_s(x)`. A logistic regression of the domains with the
    probability `p` of the target gives it as `w = n_s / n_t · p / (1 - p)`. It is
    fitted in five folds, and an example is weighted by the fit that has not seen it.
    The log ratio is linear in the features: pass those of a network, not pixels.

    Pass `weights` to `fit` as `sample_weight`. The effective sample size
    `(Σ w)² / Σ w²` says how many unweighted examples would vary as little.

    Args:
        source: Array of features, `(count, size)`, at least 5 examples. More axes are
            flattened.
        target: The same of the target domain; the count may differ.
        clip: Largest ratio; greater ones are set to it before they are scaled to a
            mean of 1. Less variance for more bias. Default None: no bound.
        seed: Seed of the folds. Default 0.

    Returns:
        A named tuple: `weights` of shape `(source count,)` and mean 1,
        `effective_sample_size` from 1 to the count, and `ratios`, the weights before
        they were scaled. `deep_embedded_validation` wants the ratios.

    Raises:
        ValueError: If the features are too few, not finite or of different sizes, or
            `clip` is not a finite number above 0.

    Warns:
        DomainOverlapWarning: If the effective sample size is below a tenth of the
            source, or the classifier errs on less than 5 % of the examples.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        rng = np.random.default_rng(0)
        source, target = rng.normal(size=(2, 400, 1)) + [[[0.0]], [[1.0]]]
        found = kt.analysis.importance_weights(source, target)
        mean = np.mean(found.weights * source[:, 0])  # as the target's, near 1
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
    size = min(size, float(len(source)))  # equal weights, but for rounding
    error = balanced_error(logs, target_logs)
    if error < SEPARABLE or size < COLLAPSED * len(source):
        warnings.warn(
            DomainOverlapWarning(
                "The domains hardly overlap: a linear classifier of them errs on "
                f"{100 * error:.2g} % of the examples, and the weighted source is "
                f"worth {size:.1f} of its {len(source)} examples. Take features of a "
                "later layer or of an adapted model, or bound the ratios by `clip`."
            ),
            stacklevel=2,
        )
    return ImportanceWeights(weights, size, ratios)
