"""Scores of a model without target labels: choose by them which one to keep."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer._arguments import positive
from keras_transfer.analysis.domains.arrays import as_classes
from keras_transfer.analysis.domains.arrays import as_column
from keras_transfer.analysis.domains.arrays import as_probabilities

CHUNK = 2**22  # similarities held at a time: 32 MB
EQUAL = 0.01  # spread of ratios, as a share of their mean, that is none


def source_accuracy(y: Any, outputs: Any, *, from_logits: bool = False) -> float:
    """Return the share of held-out source examples that are classified rightly.

    Higher is better. It is what can be measured with certainty, and it does not see
    the target: a model that lost the target's classes may keep it. Use it beside
    another validator.

    Args:
        y: Labels of the source, class numbers `(count,)` or one-hot rows.
        outputs: The model's outputs on the same examples, `(count, classes)`; one
            column is the probability of the second of two classes.
        from_logits: Whether `outputs` are logits. Default False: probabilities.

    Returns:
        A float from 0 to 1.

    Raises:
        ValueError: If counts differ, labels are of one class only or do not fit, or
            `outputs` are not what `from_logits` says.

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
    """Return minus the mean entropy of the predictions on the target, in nats.

    `1/n Σ_i Σ_c p_ic log p_ic`. Higher is better, and 0 is the best: every prediction
    is certain. A model that says the same class of everything reaches it, too;
    `information_maximization` sees that.

    Args:
        outputs: The model's outputs on the target, `(count, classes)`; one column is
            the probability of the second of two classes.
        from_logits: Whether `outputs` are logits. Default False: probabilities.

    Returns:
        A float from `-log(classes)` to 0.

    Raises:
        ValueError: If `outputs` are empty, not finite or not what `from_logits` says.

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
    """Return the mutual information of target examples and predictions, in nats.

    `H(mean p) - mean H(p)`: certain predictions that use all classes. Higher is better.
    It supposes classes of about equal frequency; where one is much the most frequent
    in the target, a right model scores lower than one that spreads.

    Args:
        outputs: The model's outputs on the target, `(count, classes)`; one column is
            the probability of the second of two classes.
        from_logits: Whether `outputs` are logits. Default False: probabilities.

    Returns:
        A float from 0 to `log(classes)`.

    Raises:
        ValueError: If `outputs` are empty, not finite or not what `from_logits` says.

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
    """Return how densely the target's predictions lie together, in nats.

    With the predictions scaled to unit length, `S_ij = <p_i, p_j>`, and
    `P_ij = exp(S_ij / τ) / Σ_k exp(S_ik / τ)` over `k ≠ i`, it is the mean over i of
    the entropy of `P_i`: many near neighbors, rather than a few. Higher is better. A
    model that says the same of everything scores highest, `log(count - 1)`, so look at
    `information_maximization` or the source accuracy as well. It costs
    `count² · classes` operations, some seconds for 20,000 examples; the memory is
    bounded.

    Args:
        outputs: The model's outputs on the target, `(count, classes)`, at least 3 rows;
            one column is the probability of the second of two classes.
        temperature: τ, above 0. Default 0.05, the paper's.
        from_logits: Whether `outputs` are logits. Default False: probabilities.

    Returns:
        A float from 0 to `log(count - 1)`.

    Raises:
        ValueError: If `outputs` are fewer than 3, not finite or not what `from_logits`
            says, or `temperature` is not a finite number above 0.

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
            f"`outputs` has {len(rows)} example(s). With fewer than 3 there is no "
            "choice of neighbors."
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
        scores[itself] = 0  # 0 times infinity is no number
        sums = powers.sum(1)
        means = np.einsum("ij,ij->i", powers, scores) / sums
        total += float((np.log(sums) - means).sum())
    return max(0.0, total / len(rows))


def importance_weighted_risk(losses: Any, weights: Any) -> float:
    """Return the target's loss as estimated from the weighted source.

    `1/n Σ w_i l_i` over held-out source examples. **A risk: lower is better**, unlike
    the other validators; `TargetValidation` logs it with the sign changed. It is
    unbiased under covariance shift with the true ratios, and varies much where few
    examples have most of the weight.

    Args:
        losses: The loss of each held-out source example, `(count,)`, at least 0: cross
            entropy, or 0 and 1 for right and wrong.
        weights: Their `importance_weights(...).weights`, or `.ratios`.

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
    """Return the importance-weighted risk with the variance of the weights taken out.

    `mean(w l) + η (mean(w) - 1)` with `η = -cov(w l, w) / var(w)`: the true ratios have
    the mean 1, so how far those of the sample are from it tells how far the risk is.
    **A risk: lower is better**, unlike the other validators; `TargetValidation` logs it
    with the sign changed. It may be negative.

    Where the ratios differ by less than 1 % of their mean, as those of features that
    have collapsed, it is the weighted mean of the losses: there is nothing to correct,
    and the quotient η would be of noise.

    Weights scaled to a mean of 1 would leave nothing to correct, so they are refused:
    pass the unscaled ratios.

    Args:
        losses: The loss of each held-out source example, `(count,)`, at least 0, and at
            least 2 of them.
        ratios: Their `importance_weights(...).ratios`, of the model's features.

    Returns:
        A float, in units of the loss.

    Raises:
        ValueError: If counts differ, values are negative, not finite or missing, or
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
        raise ValueError("One example has no variance to take out. Pass at least 2.")
    if not ratios.any():
        raise ValueError("All ratios are 0: no source example is like the target.")
    weighted = ratios * losses
    ((_, shared), (_, variance)) = np.cov(weighted, ratios)
    if variance <= (EQUAL * ratios.mean()) ** 2:
        # Nothing to take out: what is left of the variance would be noise over noise.
        return float(np.average(losses, weights=ratios))
    if abs(ratios.mean() - 1) < 1e-9:
        raise ValueError(
            "The ratios have a mean of exactly 1, so they were scaled to it and the "
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
        raise ValueError(f"All {name} are 0, so that no example counts.")
    return losses, weights


def _check_counts(name: str, first: np.ndarray, other: str, second: np.ndarray) -> None:
    if len(first) != len(second):
        raise ValueError(
            f"`{name}` has {len(first)} examples and `{other}` {len(second)}. There "
            "must be one for each."
        )
