"""MMD: the maximum mean discrepancy of two domains, with several kernels."""

from collections.abc import Sequence
from typing import NamedTuple

import keras
from keras import ops

from keras_transfer._arguments import positive
from keras_transfer.losses.batch_loss import BatchLoss
from keras_transfer.losses.batch_loss import check_features


@keras.saving.register_keras_serializable(package="keras_transfer")
class MMD(BatchLoss):
    """Squared maximum mean discrepancy of source and target features (DAN).

    `MMD` is 0 on average if and only if both domains have the same distribution of
    features. `CORAL` compares only the covariances.

    `L = E k(s, s') + E k(t, t') - 2 E k(s, t)`

    `k(x, y) = mean over c of exp(-||x - y||^2 / (c w))`

    `s` and `s'` are different rows of the source batch, `t` and `t'` are different
    rows of the target batch, and `E` is the mean over all these pairs. `c` are the
    scales, and `w` is the mean of `||x - y||^2` over all pairs of different rows of
    both batches. No gradient flows through `w`. The estimate is unbiased, so it may be
    slightly below 0. The paper trains the weights of the kernels and uses only a part
    of the pairs. The authors' code weights the kernels equally, as here, but sums
    them, which gives five times this value.

    Call the loss as `loss(source, target)` with matrices `(batch, d)`. The two batches
    may differ in size.

    Args:
        scales: Sequence of positive numbers, the widths `c` of the Gaussians as
            multiples of the mean squared distance. Defaults to `(0.25, 0.5, 1.0,
            2.0, 4.0)`.
        name: String, the name of the loss. Defaults to `None`, which makes a name
            from the class.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        near = np.array([[0.0], [1.0], [2.0]])
        far = near + 9.0
        mmd = kt.losses.MMD()
        assert mmd(near, far) > mmd(near, near + 1.0)
        ```

    Raises:
        ValueError: If `scales` is empty or contains a number that is not positive and
            finite. When called, if the shapes do not fit, or if the static shape of a
            batch has a single row. In a graph with an unknown batch size, a single
            row gives the loss 0.

    Reference:
        Long, Cao, Wang and Jordan, 2015, "Learning Transferable Features with Deep
        Adaptation Networks", arXiv 1502.02791. The estimate: Gretton et al., 2012,
        "A Kernel Two-Sample Test", Journal of Machine Learning Research 13.
    """

    def __init__(
        self,
        *,
        scales: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0),
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.scales = check_scales(scales)

    def value(self, source: object, target: object) -> object:
        """Return the loss of one replica's batches as a scalar."""
        check_features(source, target, rows=2)
        distances = squared_distances(source, target)
        return discrepancy(multi_gaussian(distances, self.scales))

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {"scales": list(self.scales)}


class Blocks(NamedTuple):
    """One number for each pair of rows: within source, within target, and across."""

    source: object
    target: object
    across: object


def check_scales(scales: Sequence[float]) -> tuple[float, ...]:
    """Return the scales as floats, or raise an error."""
    if isinstance(scales, str) or not isinstance(scales, Sequence) or not scales:
        raise ValueError(
            f"scales is {scales!r}. Pass a list of one or more positive numbers."
        )
    return tuple(positive("scale", scale) for scale in scales)


def squared_distances(source: object, target: object) -> Blocks:
    """Return the squared Euclidean distances of all pairs of rows."""
    # An origin far from the rows would lose digits. With one of the rows as the
    # origin, identical rows become exact zeros.
    origin = ops.stop_gradient(source[:1, :])
    source, target = source - origin, target - origin
    return Blocks(
        _squared_distances(source, source),
        _squared_distances(target, target),
        _squared_distances(source, target),
    )


def multi_gaussian(distances: Blocks, scales: Sequence[float]) -> Blocks:
    """Return the mean of the Gaussians of width scale times mean distance."""
    within = [_off_diagonal(block) for block in (distances.source, distances.target)]
    across = (ops.sum(distances.across), ops.sum(ops.ones_like(distances.across)))
    totals, counts = zip(*within, across, across, strict=True)
    width = ops.stop_gradient(sum(totals) / sum(counts))
    # If all rows are the same, every kernel is 1 for any width.
    width = ops.where(width > 0, width, ops.ones_like(width))
    return Blocks(
        *(
            sum(ops.exp(-block / (scale * width)) for scale in scales) / len(scales)
            for block in distances
        )
    )


def discrepancy(kernels: Blocks) -> object:
    """Return the unbiased estimate of the squared MMD from the kernels."""
    source, source_count = _off_diagonal(kernels.source)
    target, target_count = _off_diagonal(kernels.target)
    across = ops.mean(kernels.across)
    estimate = source / source_count + target / target_count - 2.0 * across
    # A last batch of one row has no pairs.
    rows = [ops.sum(ops.ones_like(x[:, 0])) for x in (kernels.source, kernels.target)]
    return ops.where(ops.minimum(*rows) > 1, estimate, ops.zeros_like(estimate))


def _squared_distances(x: object, y: object) -> object:
    square_x = ops.sum(ops.square(x), axis=1)[:, None]
    square_y = ops.sum(ops.square(y), axis=1)[None, :]
    product = ops.matmul(x, ops.transpose(y))
    # Rounding can give a slightly negative number for a distance of 0.
    return ops.maximum(square_x + square_y - 2.0 * product, 0.0)


def _off_diagonal(block: object) -> tuple[object, object]:
    # The sum over the pairs of different rows, and their number (at least 1).
    ones = ops.ones_like(block)
    count = ops.sum(ones) - ops.sum(ones[:, 0])
    return ops.sum(block) - ops.trace(block), ops.maximum(count, 1.0)
