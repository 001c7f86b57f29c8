"""FeatureNorm: features of both domains grow longer step by step."""

import keras
from keras import ops

from keras_transfer._arguments import positive
from keras_transfer.losses.batch_loss import BatchLoss
from keras_transfer.losses.batch_loss import check_features


@keras.saving.register_keras_serializable(package="keras_transfer")
class FeatureNorm(BatchLoss):
    """Stepwise adaptive feature norm: longer features in both domains (SAFN).

    Features of the target are often shorter than those of the source, and long ones
    transfer better. At each step every feature vector is asked to be `step` longer
    than it is:

    `L = mean over the source of (||f|| - r(||f||) - step)^2 + the same of the target`

    with `f` a row of features, `||.||` the Euclidean norm, and `r` the same norm
    without a gradient. So the value is always `2 step^2` and tells nothing; the
    gradient is what counts: `-2 step f / ||f|| / n` for a row of `n`, and 0 for a
    row of zeros. Watch the norms instead.

    Called as `loss(source, target)` with matrices `(batch, d)`, whose batches may
    differ in size.

    Args:
        step: How much longer each row is to be, in units of the features; positive.
        name: Name of the loss; None makes one from the class.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        features = np.array([[3.0, 4.0], [1.0, 0.0]])
        assert float(kt.losses.FeatureNorm(step=0.5)(features, features)) == 0.5
        ```

    Raises:
        ValueError: If `step` is not positive and finite. When called, if the shapes
            do not fit.

    Reference:
        Xu, Li, Yang and Lin, 2019, "Larger Norm More Transferable: An Adaptive Feature
        Norm Approach for Unsupervised Domain Adaptation", arXiv 1811.07456.
    """

    def __init__(self, *, step: float = 1.0, name: str | None = None):
        super().__init__(name=name)
        self.step = positive("step", step)

    def value(self, source: object, target: object) -> object:
        """Return the loss of one replica's batches as a scalar."""
        check_features(source, target)
        return self._of_one_domain(source) + self._of_one_domain(target)

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {"step": self.step}

    def _of_one_domain(self, features: object) -> object:
        norm = _norm(features)
        return ops.mean(ops.square(norm - ops.stop_gradient(norm) - self.step))


def _norm(features: object) -> object:
    # The root has no gradient at 0, and `where` alone would still multiply it by 0.
    square = ops.sum(ops.square(features), axis=1)
    some = square > 0
    root = ops.sqrt(ops.where(some, square, ops.ones_like(square)))
    return ops.where(some, root, ops.zeros_like(root))
