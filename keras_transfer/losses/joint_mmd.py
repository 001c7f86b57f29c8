"""JointMMD: the discrepancy of the joint features and predictions."""

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

    `MMD` can be 0 even if a class of the target has the features of another class of
    the source. `JointMMD` detects this mismatch, because its kernel compares both the
    features and the class probabilities `p` of two examples:

    `L = E k(s, s') + E k(t, t') - 2 E k(s, t)`

    `k = k_f k_p`, `k_p = exp(-||p - p'||^2 / b)`

    `k_f` is the kernel of `MMD` on the features, and `b` is the bandwidth of the
    probabilities. `E` is the mean over all pairs of different rows, so the estimate is
    unbiased. The paper uses only a part of the pairs. The authors' code also uses
    `b = 1.68`, but it adds the Gaussians of `k_f` instead of averaging them.

    Call the loss as `loss(source, target)`. Each argument is a pair (features,
    probabilities) of matrices `(batch, d)` and `(batch, classes)`. The batches of
    source and target may differ in size.

    Args:
        scales: Sequence of positive numbers, the widths of the Gaussians of the
            features as multiples of the mean squared distance of the features.
            Defaults to `(0.25, 0.5, 1.0, 2.0, 4.0)`.
        probability_bandwidth: Positive number `b`. The squared distance of two
            probability vectors is at most 2. Defaults to 1.68.
        name: String, the name of the loss. Defaults to `None`, which makes a name
            from the class.

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
            When called, if `source` or `target` is not a pair, a batch has a single
            row, or the shapes do not fit.

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
        for source_part, target_part in zip(source, target, strict=True):
            check_features(source_part, target_part, rows=2)
        for name, (features, classes) in (("source", source), ("target", target)):
            if differ(features.shape[:1], classes.shape[:1]):
                raise ValueError(
                    f"The features of {name} have the shape {tuple(features.shape)} "
                    f"and the probabilities {tuple(classes.shape)}, but both need the "
                    "same number of rows. Pass one row for each example of the batch."
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
