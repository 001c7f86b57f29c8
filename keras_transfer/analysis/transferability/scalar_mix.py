"""The scalar mix: a linear probe of a weighted sum of the blocks of a backbone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from keras_transfer.analysis.linear_solutions import PENALTY
from keras_transfer.analysis.transferability.probe import folds_of
from keras_transfer.analysis.transferability.probe import Probe
from keras_transfer.analysis.transferability.probe import probe_of

LEAST_SCALE = 1e-6  # of a feature, as a share of the largest


class MixedProbe(NamedTuple):
    """The probe of a weighted sum of blocks.

    Args:
        probe: Its accuracy on held-out examples, and the standard error.
        weights: Array of shape `(blocks,)`, the weights. They add up to 1.
    """

    probe: Probe
    weights: np.ndarray

    @property
    def center(self) -> float:
        """The center of gravity of the weights, from 0 for the first block."""
        return float(self.weights @ np.arange(len(self.weights)))


def scalar_mix(features: np.ndarray, labels: np.ndarray, seed: int) -> MixedProbe:
    """Return the probe of `Σ s_b h_b`, whose weights are trained with the classifier.

    The weights are a softmax, as in equation 1 of Tenney et al. 2019. The classifier is
    found by L-BFGS, as for the other probes, and `kt.layers.ScalarMix` is the layer
    that trains such weights with a network. Each block is
    standardized first, so a weight does not depend on the scale of a block.

    Args:
        features: Array of shape `(blocks, count, size)`.
        labels: Class indices of shape `(count,)`, with every class from 0.
        seed: Int, the seed of the folds.
    """
    scale = features.std(axis=1, keepdims=True)
    least = LEAST_SCALE * scale.max(axis=2, keepdims=True)
    scale = np.maximum(scale, np.where(least > 0, least, 1.0))
    features = (features - features.mean(axis=1, keepdims=True)) / scale
    targets = np.eye(labels.max() + 1)[labels]
    right = 0
    for train, test in folds_of(labels, seed):
        weights, kernel, bias = _fit(features[:, train], targets[train])
        mixed = np.tensordot(weights, features[:, test], 1)
        right += np.count_nonzero((mixed @ kernel + bias).argmax(1) == labels[test])
    return MixedProbe(probe_of(right, len(labels)), _fit(features, targets)[0])


def _fit(
    features: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the weights of the blocks, and the kernel and bias of the classifier."""
    from scipy.optimize import minimize

    blocks, count, size = features.shape
    classes = targets.shape[1]
    ends = np.cumsum([blocks, size * classes])

    def parts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        scores, kernel, bias = np.split(values, ends)
        return _softmax(scores), kernel.reshape(size, classes), bias

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the loss of scikit-learn's logistic regression, and its gradient."""
        weights, kernel, bias = parts(values)
        mixed = np.tensordot(weights, features, 1)
        shares = _softmax(mixed @ kernel + bias)
        losses = -np.log(
            np.maximum((shares * targets).sum(1), np.finfo("float64").tiny)
        )
        of_logits = PENALTY * (shares - targets)
        of_weights = np.einsum("bnd,nd->b", features, of_logits @ kernel.T)
        of_scores = weights * (of_weights - weights @ of_weights)
        of_kernel = mixed.T @ of_logits + kernel
        gradient = [of_scores, of_kernel.ravel(), of_logits.sum(0)]
        total = PENALTY * losses.sum() + 0.5 * np.square(kernel).sum()
        return total, np.concatenate(gradient)

    # With equal weights and a kernel of 0 the weights would have no gradient, and the
    # kernel gets one in the first step.
    start = np.zeros(ends[1] + classes)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return parts(found.x)


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
