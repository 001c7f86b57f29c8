"""Validators that compare several models, or use features that no model changes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_transfer.analysis.arrays import as_classes
from keras_transfer.analysis.arrays import as_domains
from keras_transfer.analysis.arrays import as_probabilities
from keras_transfer.analysis.one_thread import one_thread

INVERSE_PENALTY = 0.1  # C of LogisticRegression, on standardized features
STEPS = 200


def ensemble_agreement(
    outputs: Sequence[Any], *, from_logits: bool = False
) -> np.ndarray:
    """Return how often each of several models agrees with all of them together.

    The ensemble predicts the class with the largest mean probability over the models.
    The score of a model is the share of target examples for which it predicts the same
    class. Higher is better. The ensemble is at least as good as its worst member, so
    the model that is closest to it is not the worst, if models err in different ways.
    If most of the models share an error, the score prefers them. Of only two models, it
    prefers the more certain one, which decides the mean.

    Args:
        outputs: Sequence of arrays, the outputs of each of at least two models on the
            same target examples, `(count, classes)`. A single column is the probability
            of the second of two classes.
        from_logits: Bool, whether `outputs` are logits. Defaults to `False`, for
            probabilities.

    Returns:
        Array of shape `(models,)`, of values from 0 to 1.

    Raises:
        ValueError: If there are fewer than two models, if their outputs have different
            shapes, are not finite or do not match `from_logits`.

    Example:
        ```python
        import keras_transfer as kt

        first, second = [[0.9, 0.1], [0.2, 0.8]], [[0.8, 0.2], [0.4, 0.6]]
        other = [[0.6, 0.4], [0.6, 0.4]]
        found = kt.analysis.ensemble_agreement([first, second, other])
        assert found.tolist() == [1.0, 1.0, 0.5]
        ```

    Reference:
        Hu, Luo, Liang and Foo 2024, Towards Reliable Model Selection for Unsupervised
        Domain Adaptation: An Empirical Study and A Certified Baseline, NeurIPS Datasets
        and Benchmarks (EnsV).
    """
    agrees = agreements(outputs, from_logits=from_logits)
    return agrees.mean(axis=1)


def agreements(outputs: Sequence[Any], *, from_logits: bool = False) -> np.ndarray:
    """Return for each model and example whether it predicts what the ensemble does."""
    models = [as_probabilities(each, from_logits) for each in outputs]
    if len(models) < 2:
        raise ValueError(
            f"`outputs` has {len(models)} model(s). Pass the outputs of at least two, "
            "because one model always agrees with itself."
        )
    shapes = {each.shape for each in models}
    if len(shapes) > 1:
        raise ValueError(
            f"The outputs have the shapes {sorted(shapes)}. Pass the outputs of all "
            "models on the same examples."
        )
    chosen = np.mean(models, axis=0).argmax(axis=1)
    return np.stack([each.argmax(axis=1) == chosen for each in models])


def reverse_accuracy(
    source: Any,
    y: Any,
    target: Any,
    outputs: Any,
    *,
    from_logits: bool = False,
) -> float:
    """Return how well the predictions for the target explain the labels of the source.

    A logistic regression learns the predicted classes from features of the target. The
    score is its accuracy on features of the source, whose labels are known. Higher is
    better. Predictions that follow the classes of the target give a classifier that is
    also right on the source. Each domain is standardized by its own mean and deviation.

    To compare models, pass the same features for all of them, such as those of the
    model before adaptation. A method that aligns the domains would otherwise raise its
    own score.

    Args:
        source: Array of features of source examples, `(count, size)`.
        y: Array of their labels, class numbers of shape `(count,)` or one-hot rows.
        target: Array of features of target examples, `(other_count, size)`.
        outputs: Array of the model's outputs on these target examples, `(other_count,
            classes)`. A single column is the probability of the second of two classes.
        from_logits: Bool, whether `outputs` are logits. Defaults to `False`, for
            probabilities.

    Returns:
        A float from 0 to 1.

    Raises:
        ValueError: If shapes or counts do not fit, if values are not finite, or if
            labels do not fit the classes.

    Example:
        ```python
        import keras_transfer as kt

        y = np.arange(40) % 2
        source, target = y[:, None] + 0.0, y[:, None] + 5.0
        right = np.eye(2)[y]
        assert kt.analysis.reverse_accuracy(source, y, target, right) == 1.0
        assert kt.analysis.reverse_accuracy(source, y, target, 1 - right) == 0.0
        ```

    Reference:
        Zhong, Fan, Yang, Verscheure and Ren 2010, Cross Validation Framework to Choose
        Amongst Models and Datasets for Transfer Learning, ECML PKDD. Ganin et al. 2016,
        Domain-Adversarial Training of Neural Networks, arXiv:1505.07818, section 5.1.2.
    """
    right = reverse_right(source, y, target, outputs, from_logits=from_logits)
    return float(right.mean())


def reverse_right(
    source: Any, y: Any, target: Any, outputs: Any, *, from_logits: bool = False
) -> np.ndarray:
    """Return for each source example whether the reverse classifier is right."""
    source, target = as_domains(source, target)
    probabilities = as_probabilities(outputs, from_logits)
    labels = as_classes(y, probabilities.shape[1])
    for name, rows, other, count in (
        ("source", source, "y", len(labels)),
        ("target", target, "outputs", len(probabilities)),
    ):
        if len(rows) != count:
            raise ValueError(
                f"`{name}` has {len(rows)} examples, but `{other}` has {count}. Pass "
                "the same number for both."
            )
    predicted = probabilities.argmax(axis=1)
    if len(np.unique(predicted)) == 1:
        return labels == predicted[0]
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    classifier = LogisticRegression(C=INVERSE_PENALTY, max_iter=STEPS)
    with one_thread(), warnings.catch_warnings():
        # The score also evaluates a fit that stopped early.
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(_standardized(target), predicted)
    return classifier.predict(_standardized(source)) == labels


def _standardized(rows: np.ndarray) -> np.ndarray:
    deviation = rows.std(axis=0)
    return (rows - rows.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
