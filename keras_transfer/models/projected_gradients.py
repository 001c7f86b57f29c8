"""PCGrad: gradients of several tasks, projected so that they agree."""

from __future__ import annotations

from collections.abc import Sequence

from keras import ops


def projected_sum(gradients: Sequence, order: object) -> list:
    """Return the sum of the projected gradients of all tasks, by Yu et al. (2020).

    The gradient of a task loses its part along the gradient of each other task that it
    conflicts with, in the given order:

        g_i <- g_i - (g_i . g_j) / |g_j|^2 g_j   if g_i . g_j < 0

    A projected gradient is a weighted sum of the gradients. So the weights follow from
    the scalar products of the gradients, and only the sum is computed in full.

    Args:
        gradients: For each weight, a tensor `(tasks, *shape)`. A product goes over all
            weights.
        order: Int tensor `(tasks, tasks)`. Row i is a permutation of the tasks, the
            order in which task i is compared with the others.
    """
    products = sum(_products(each) for each in gradients)
    weights = ops.sum(projections(products, order), axis=0)
    return [ops.tensordot(weights, each, axes=1) for each in gradients]


def projections(products: object, order: object) -> object:
    """Return the projected gradient of each task as weights of the gradients.

    Args:
        products: The scalar products of the gradients, `(tasks, tasks)`.
        order: As in `projected_sum`.
    """
    count = products.shape[0]
    weights = ops.eye(count, dtype="float32")
    norms = ops.diagonal(products)
    for place in range(count):
        other = order[:, place]
        product = ops.sum(weights * ops.take(products, other, axis=0), axis=1)
        norm = ops.take(norms, other)
        conflicts = (product < 0) & (other != ops.arange(count, dtype=other.dtype))
        conflicts = conflicts & (norm > 0)
        share = ops.where(conflicts, product / ops.where(norm > 0, norm, 1.0), 0.0)
        weights = weights - share[:, None] * ops.one_hot(other, count, dtype="float32")
    return weights


def _products(gradient: object) -> object:
    rows = ops.reshape(gradient, (gradient.shape[0], -1))
    return ops.matmul(rows, ops.transpose(rows))
