"""LEEP: how well the predicted source classes tell the classes of the new task."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer.analysis.arrays import as_probabilities
from keras_transfer.analysis.transferability.classes import class_indices


def leep(outputs: Any, labels: Any, *, from_logits: bool = False) -> float:
    """Return the log expected empirical prediction of labels from source classes.

    A pretrained classifier gives each example `x` of the new task the probabilities
    `θ(x)` of its own classes `z`. The joint distribution of `z` and the labels `y`,
    `P(y, z) = mean of θ(x)_z over the examples with label y`, gives a classifier of the
    new task without any training: `p(y | x) = Σ_z P(y | z) θ(x)_z`. LEEP is the mean of
    its log likelihood `log p(y | x)` on the same examples. It is at most 0, and larger
    is better. It is at least minus the entropy of the labels.

    LEEP can mislead. It sees only the source classes and not the features before them,
    and it favors models with many or with confident source classes. In benchmarks its
    rank correlation with the accuracy after fine-tuning can be negative. Prefer
    `log_me`, or a probe. A model without source classes, such as one trained without
    labels, has no LEEP.

    Args:
        outputs: Array of probabilities of the source classes, `(count, classes)`.
        labels: Class numbers of the new task, `(count,)`, or one-hot rows.
        from_logits: Bool, whether `outputs` are logits. Defaults to `False`.

    Returns:
        A float of at most 0.

    Raises:
        TypeError: If `from_logits` is not a bool.
        ValueError: If `outputs` are not probabilities, have a single class, or do not
            match the labels, or if labels are of one class.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        labels = np.arange(100) % 2
        exact = np.eye(3)[labels]
        blind = np.full((100, 3), 1 / 3)
        assert abs(kt.analysis.leep(exact, labels)) < 1e-9
        assert abs(kt.analysis.leep(blind, labels) - np.log(0.5)) < 1e-9
        ```

    Reference:
        Nguyen, Hassner, Seeger and Archambeau 2020, LEEP: A New Measure to Evaluate
        Transferability of Learned Representations, arXiv:2002.12462, equations 1 to 3.
    """
    shares = as_probabilities(outputs, from_logits)
    indices = class_indices(labels, len(shares))
    joint = np.zeros((indices.max() + 1, shares.shape[1]))
    np.add.at(joint, indices, shares)
    of_source = joint.sum(0)
    seen = of_source > 0  # a source class that is never predicted says nothing
    conditional = joint[:, seen] / of_source[seen]
    likelihood = np.sum(conditional[indices] * shares[:, seen], axis=1)
    return float(np.mean(np.log(likelihood)))
