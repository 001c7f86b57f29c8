"""CORAL: the distance between the covariances of two domains."""

import keras
from keras import ops

from keras_transfer.losses.batch_loss import BatchLoss
from keras_transfer.losses.batch_loss import check_features


@keras.saving.register_keras_serializable(package="keras_transfer")
class CORAL(BatchLoss):
    """Squared distance between the covariances of source and target features.

    Minimize this loss together with the loss of the source labels, to give the
    features of both domains the same covariance (Deep CORAL):

    `L = ||C_s - C_t||_F^2 / (4 d^2)`

    `C = sum_i (x_i - m)(x_i - m)^T / (n - 1)` is the covariance of one batch with `n`
    rows `x_i` of `d` features and the mean row `m`. `||.||_F` is the root of the sum
    of squares. The loss does not compare the means.

    Call the loss as `loss(source, target)` with matrices `(batch, d)`. The two batches
    may differ in size.

    Args:
        name: String, the name of the loss. Defaults to `None`, which makes a name
            from the class.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        source = np.array([[0.0], [2.0]])  # variance 2
        target = np.array([[5.0], [5.0], [5.0]])  # variance 0
        assert float(kt.losses.CORAL()(source, target)) == 1.0  # 2^2 / 4
        ```

    Raises:
        ValueError: When called, if a batch has a single row, which has no covariance,
            or if the shapes do not fit.

    Reference:
        Sun and Saenko, 2016, "Deep CORAL: Correlation Alignment for Deep Domain
        Adaptation", arXiv 1607.01719.
    """

    def value(self, source: object, target: object) -> object:
        """Return the loss of one replica's batches as a scalar."""
        check_features(source, target, rows=2)
        difference = _covariance(source) - _covariance(target)
        return ops.sum(ops.square(difference)) / (4.0 * source.shape[1] ** 2)


def _covariance(x: object) -> object:
    x = x - ops.mean(x, axis=0, keepdims=True)
    # A sum of ones gives the batch size also if the static shape does not define it.
    count = ops.sum(ops.ones_like(x[:, 0]))
    return ops.matmul(ops.transpose(x), x) / ops.maximum(count - 1.0, 1.0)
