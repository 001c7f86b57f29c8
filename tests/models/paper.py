"""Equations of the papers in NumPy, for the tests of domain adaptation."""

import numpy as np


def softmax(z):
    """Return the probabilities of logits."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def surprise(y, z):
    """Return -log of the probability of each label."""
    return -np.log(softmax(z)[np.arange(len(y)), y])


def cross_entropy(y, z):
    """Return the mean of `surprise`."""
    return surprise(y, z).mean()


def entropy(p):
    """Return the entropy of each row of probabilities, in nats."""
    return -(p * np.log(p)).sum(axis=1)


def domain_loss(source, target, of_source=1.0, of_target=1.0):
    """Return the mean cross-entropy of both domains, from logits and weights."""

    def mean(losses, weights):
        return np.average(losses, weights=np.broadcast_to(weights, losses.shape))

    source, target = source[:, 0], target[:, 0]
    return 0.5 * (
        mean(np.log1p(np.exp(source)), of_source)
        + mean(np.log1p(np.exp(-target)), of_target)
    )
