"""JointMMD: the discrepancy of features and predictions taken together."""

from collections.abc import Sequence

import keras
from keras import ops

from keras_transfer._arguments import positive
from keras_transfer.losses.batch_loss import BatchLoss
from keras_transfer.losses.batch_loss import check_features
from keras_transfer.losses.batch_loss import check_pair
from keras_transfer.losses.batch_loss import differ
from keras_transfer.losses.mmd import Blocks
from keras_transfer.losses.mmd import check_scales
from keras_transfer.losses.mmd import discrepancy
from keras_transfer.losses.mmd import multi_gaussian
from keras_transfer.losses.mmd import squared_distances


@keras.saving.register_keras_serializable(package="keras_transfer")
class JointMMD(BatchLoss):
    """Squared discrepancy of the joint distributions of features and predictions (JAN).

    `MMD` may be 0 while the classes of the target lie on other classes of the source.
    This loss sees that, for its kernel compares two examples by their features `x`
    and by their class probabilities `p` at once:

    `L = E k(s, s') + E k(t, t') - 2 E k(s, t)`

    `k = k_f k_p`, `k_p = exp(-||p - p'||^2 / b)`

    with `k_f` the kernel of `MMD` on the features, `b` the bandwidth of the
    probabilities, and `E` the mean over all pairs of different rows, unbiased. The
    paper takes a part of the pairs, and its authors' code adds the Gaussians of `k_f`
    up instead of averaging them. Their code has `b = 1.68`, as here.

    Called as `loss(source, target)`; each is a pair (features, probabilities) of
    matrices `(batch, d)` and `(batch, classes)`. The batches of source and target may
    differ in size.

    Args:
        scales: The widths of the Gaussians of the features, positive numbers, as
            multiples of the mean squared distance of features.
        probability_bandwidth: `b`, a positive number; probabilities are at most a
            squared distance of 2 apart.
        name: Name of the loss; None makes one from the class.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        x = np.array([[0.0], [1.0], [8.0], [9.0]])
        p = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        joint = kt.losses.JointMMD()
        swapped = (x, p[::-1])  # the same features with the other class
        assert joint((x, p), swapped) > joint((x, p), (x, p))
        ```

    Raises:
        ValueError: If an argument is not positive and finite, or `scales` is empty.
            When called, if source or target is no pair, a batch has a single row, or
            the shapes do not fit.

    Reference:
        Long, Zhu, Wang and Jordan, 2017, "Deep Transfer Learning with Joint Adaptation
        Networks", arXiv 1605.06636.
    """

    def __init__(
        self,
        *,
        scales: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0),
        probability_bandwidth: float = 1.68,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.scales = check_scales(scales)
        self.probability_bandwidth = positive(
            "probability_bandwidth", probability_bandwidth
        )

    def value(self, source: object, target: object) -> object:
        """Return the loss of one replica's batches as a scalar."""
        for name, pair in (("source", source), ("target", target)):
            check_pair(name, pair, "features", "probabilities")
        for ours, theirs in zip(source, target, strict=True):
            check_features(ours, theirs, rows=2)
        for name, (features, classes) in (("source", source), ("target", target)):
            if differ(features.shape[:1], classes.shape[:1]):
                raise ValueError(
                    f"The features of {name} have the shape {tuple(features.shape)} "
                    f"and its probabilities {tuple(classes.shape)}: both need a row "
                    "for each example of one batch."
                )
        kernels = multi_gaussian(squared_distances(source[0], target[0]), self.scales)
        distances = squared_distances(source[1], target[1])
        return discrepancy(
            Blocks(
                *(
                    kernel * ops.exp(-distance / self.probability_bandwidth)
                    for kernel, distance in zip(kernels, distances, strict=True)
                )
            )
        )

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {
            "scales": list(self.scales),
            "probability_bandwidth": self.probability_bandwidth,
        }
