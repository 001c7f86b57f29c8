"""Validators, which score a model without target labels so you can select one."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer._arguments import positive
from keras_transfer.analysis.arrays import as_classes
from keras_transfer.analysis.arrays import as_column
from keras_transfer.analysis.arrays import as_probabilities

CHUNK = 2**22  # similarities in memory at a time, which take 32 MB
EQUAL = 0.01  # ratios with less spread, as a share of their mean, count as equal


def source_accuracy(y: Any, outputs: Any, *, from_logits: bool = False) -> float:
    """Return the accuracy on held-out source examples.

    Higher is better. The score does not use the target, so a model that is wrong on the
    target can still have a high score. Use it together with another validator.

    Args:
        y: Array of source labels, class numbers of shape `(count,)` or one-hot rows.
        outputs: Array of the model's outputs on the same examples, `(count, classes)`.
            A single column is the probability of the second of two classes.
        from_logits: Bool, whether `outputs` are logits. Defaults to `False`, for
            probabilities.

    Returns:
        A float from 0 to 1.

    Raises:
        ValueError: If counts differ, labels do not fit or are all of one class, or
            `outputs` do not match `from_logits`.

    Example:
        ```python
        import keras_transfer as kt

        outputs = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]]
        assert kt.analysis.source_accuracy([0, 1, 1, 1], outputs) == 0.75
        ```

    Reference:
        Musgrave, Belongie and Lim 2021, Unsupervised Domain Adaptation: A Reality
        Check, arXiv:2111.15672.
    """
    probabilities = as_probabilities(outputs, from_logits)
    labels = as_classes(y, probabilities.shape[1])
    _check_counts("y", labels, "outputs", probabilities)
    return float(np.mean(probabilities.argmax(1) == labels))


def target_entropy(outputs: Any, *, from_logits: bool = False) -> float:
    """Return the negative mean entropy of the predictions on the target, in nats.

    The score is `1/n Σ_i Σ_c p_ic log p_ic`. Higher is better. The best score is 0,
    which means that every prediction is certain. A model that predicts the same class
    for all examples also reaches 0. `information_maximization` detects this case.

    Args:
        outputs: Array of the model's outputs on the target, `(count, classes)`. A
            single column is the probability of the second of two classes.
        from_logits: Bool, whether `outputs` are logits. Defaults to `False`, for
            probabilities.

    Returns:
        A float from `-log(classes)` to 0.

    Raises:
        ValueError: If `outputs` are empty, not finite or do not match `from_logits`.

    Example:
        ```python
        import keras_transfer as kt

        found = kt.analysis.target_entropy([[0.5, 0.5], [1.0, 0.0]])
        assert abs(found + 0.5 * np.log(2)) < 1e-12
        ```

    Reference:
        Morerio, Cavazza and Murino 2018, Minimal-Entropy Correlation Alignment for
        Unsupervised Deep Domain Adaptation, arXiv:1711.10288.
    """
    return -float(_entropies(as_probabilities(outputs, from_logits)).mean())


def information_maximization(outputs: Any, *, from_logits: bool = False) -> float:
    """Return the mutual information between target examples and predictions, in nats.

    The score is `H(mean p) - mean H(p)`. Higher is better. A high score means that
    predictions are certain and use all classes. The score assumes classes of about
    equal frequency. If one class is much more frequent in the target, a correct model
    scores lower than a model that spreads its predictions over all classes.

    Args:
        outputs: Array of the model's outputs on the target, `(count, classes)`. A
            single column is the probability of the second of two classes.
        from_logits: Bool, whether `outputs` are logits. Defaults to `False`, for
            probabilities.

    Returns:
        A float from 0 to `log(classes)`.

    Raises:
        ValueError: If `outputs` are empty, not finite or do not match `from_logits`.

    Example:
        ```python
        import keras_transfer as kt

        found = kt.analysis.information_maximization([[0.0, 1.0], [1.0, 0.0]])
        assert abs(found - np.log(2)) < 1e-12
        ```

    Reference:
        Bridle, Heading and MacKay 1991, Unsupervised Classifiers, Mutual Information
        and "Phantom Targets", NeurIPS. Shi and Sha 2012, Information-Theoretical
        Learning of Discriminative Clusters for Unsupervised Domain Adaptation,
        arXiv:1206.6438.
    """
    probabilities = as_probabilities(outputs, from_logits)
    marginal = _entropies(probabilities.mean(0, keepdims=True))[0]
    return max(0.0, float(marginal - _entropies(probabilities).mean()))


def soft_neighborhood_density(
    outputs: Any, *, temperature: float = 0.05, from_logits: bool = False
) -> float:
    """Return the soft neighborhood density of the target predictions, in nats.

    The predictions are scaled to unit length. With `S_ij = <p_i, p_j>` and
    `P_ij = exp(S_ij / τ) / Σ_k exp(S_ik / τ)` over `k ≠ i`, the score is the mean over
    i of the entropy of `P_i`. Higher is better. A high score means that each example
    has many near neighbors. A model that predicts the same for all examples gets the
    highest score, `log(count - 1)`, so also check `information_maximization` or
    `source_accuracy`. The score takes `count² · classes` operations, a few seconds for
    20,000 examples. Memory use is bounded.

    Args:
        outputs: Array of the model's outputs on the target, `(count, classes)`, with at
            least 3 rows. A single column is the probability of the second of two
            classes.
        temperature: Float above 0, the temperature τ. Defaults to 0.05, as in the
            paper.
        from_logits: Bool, whether `outputs` are logits. Defaults to `False`, for
            probabilities.

    Returns:
        A float from 0 to `log(count - 1)`.

    Raises:
        ValueError: If `outputs` have fewer than 3 rows, are not finite or do not match
            `from_logits`, or if `temperature` is not a finite number above 0.

    Example:
        ```python
        import keras_transfer as kt

        two_clusters = np.repeat(np.eye(2), 5, axis=0)
        found = kt.analysis.soft_neighborhood_density(two_clusters)
        assert abs(found - np.log(4)) < 1e-3  # each has four neighbors
        ```

    Reference:
        Saito, Kim, Teterwak, Sclaroff, Darrell and Saenko 2021, Tune it the Right Way:
        Unsupervised Validation of Domain Adaptation via Soft Neighborhood Density,
        arXiv:2108.10860.
    """
    rows = as_probabilities(outputs, from_logits)
    if len(rows) < 3:
        raise ValueError(
            f"`outputs` has {len(rows)} example(s). With fewer than 3, an example has "
            "at most one neighbor. Pass at least 3."
        )
    positive("temperature", temperature)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    step = max(1, CHUNK // len(rows))
    total = 0.0
    for start in range(0, len(rows), step):
        scores = rows[start : start + step] @ rows.T / temperature
        itself = np.arange(len(scores)), np.arange(len(scores)) + start
        scores[itself] = -np.inf
        scores -= scores.max(1, keepdims=True)
        powers = np.exp(scores)
        scores[itself] = 0  # avoids 0 times infinity, which is NaN
        sums = powers.sum(1)
        means = np.einsum("ij,ij->i", powers, scores) / sums
        total += float((np.log(sums) - means).sum())
    return max(0.0, total / len(rows))


def importance_weighted_risk(losses: Any, weights: Any) -> float:
    """Return an estimate of the target loss from weighted source examples.

    The risk is `1/n Σ w_i l_i` over held-out source examples. **Lower is better**,
    unlike for most validators. `TargetValidation` logs the risk with the opposite sign.
    With the true ratios, the risk is unbiased under covariance shift. It has a high
    variance if a few examples have most of the weight.

    Args:
        losses: Array of shape `(count,)`, the loss of each held-out source example, at
            least 0. Use cross-entropy, or 0 for a correct and 1 for a wrong prediction.
        weights: Array of shape `(count,)`, the `importance_weights(...).weights` or
            `.ratios` of the same examples.

    Returns:
        A float of at least 0, in units of the loss.

    Raises:
        ValueError: If counts differ, or values are negative, not finite or missing.

    Example:
        ```python
        import keras_transfer as kt

        assert kt.analysis.importance_weighted_risk([0, 1, 1], [2, 0.5, 0.5]) == 1 / 3
        ```

    Reference:
        Sugiyama, Krauledat and Müller 2007, Covariate Shift Adaptation by Importance
        Weighted Cross Validation, Journal of Machine Learning Research 8.
    """
    losses, weights = _risks(losses, "weights", weights)
    return float(np.mean(weights * losses))


def deep_embedded_validation(losses: Any, ratios: Any) -> float:
    """Return the importance-weighted risk with a lower variance.

    The risk is `mean(w l) + η (mean(w) - 1)`, with `η = -cov(w l, w) / var(w)`. The
    true ratios have a mean of 1, so the mean of the sampled ratios is used to correct
    the risk. **Lower is better**, unlike for most validators. `TargetValidation` logs
    the risk with the opposite sign. The risk can be negative.

    If the standard deviation of the ratios is at most 1 % of their mean, the result is
    the weighted mean of the losses. Collapsed features give such ratios. There is then
    nothing to correct, and η would be noise.

    Weights that were scaled to a mean of 1 raise an error, because their correction
    would be 0. Pass the unscaled ratios.

    Args:
        losses: Array of shape `(count,)`, the loss of each of at least 2 held-out
            source examples, at least 0.
        ratios: Array of shape `(count,)`, the `importance_weights(...).ratios` of the
            same examples, computed on the model's features.

    Returns:
        A float, in units of the loss.

    Raises:
        ValueError: If counts differ, values are negative, not finite or missing, or if
            the ratios were scaled to a mean of 1.

    Example:
        ```python
        import keras_transfer as kt

        found = kt.analysis.deep_embedded_validation([0, 1, 1], [2.0, 1.0, 0.6])
        assert abs(found - 0.641) < 0.001  # the weighted risk is 0.533
        ```

    Reference:
        You, Wang, Long and Jordan 2019, Towards Accurate Model Selection in Deep
        Unsupervised Domain Adaptation, ICML.
    """
    losses, ratios = _risks(losses, "ratios", ratios)
    if len(losses) < 2:
        raise ValueError("The variance of one example is not defined. Pass at least 2.")
    weighted = ratios * losses
    ((_, shared), (_, variance)) = np.cov(weighted, ratios)
    if variance <= (EQUAL * ratios.mean()) ** 2:
        # For nearly equal ratios, η would divide noise by noise.
        return float(np.average(losses, weights=ratios))
    if abs(ratios.mean() - 1) < 1e-9:
        raise ValueError(
            "The ratios have a mean of exactly 1, so they were scaled and the "
            "correction is 0. Pass importance_weights(...).ratios, not .weights."
        )
    return float(weighted.mean() - shared / variance * (ratios.mean() - 1))


def _entropies(probabilities: np.ndarray) -> np.ndarray:
    """Return the entropy of each row, with 0 log 0 = 0."""
    from scipy.special import entr

    return entr(probabilities).sum(1)


def _risks(losses: Any, name: str, weights: Any) -> tuple[np.ndarray, np.ndarray]:
    losses, weights = as_column("losses", losses), as_column(name, weights)
    _check_counts("losses", losses, name, weights)
    if not weights.any():
        raise ValueError(
            f"All {name} are 0, so no example counts. Pass {name} of which at least "
            "one is above 0."
        )
    return losses, weights


def _check_counts(name: str, first: np.ndarray, other: str, second: np.ndarray) -> None:
    if len(first) != len(second):
        raise ValueError(
            f"`{name}` has {len(first)} examples, but `{other}` has {len(second)}. "
            "Pass the same number for both."
        )
