"""FeatureNorm: increase the norm of the features of both domains step by step."""

import keras
from keras import ops

from keras_transfer._arguments import positive
from keras_transfer.losses.batch_loss import BatchLoss
from keras_transfer.losses.batch_loss import check_features


@keras.saving.register_keras_serializable(package="keras_transfer")
class FeatureNorm(BatchLoss):
    """Stepwise adaptive feature norm (SAFN): larger feature norms in both domains.

    Target features often have smaller norms than source features, and features with
    large norms transfer better. In each training step, this loss increases the norm of
    each feature vector toward its current norm plus `step`:

    `L = mean over the source of (||f|| - r(||f||) - step)^2 + the same for the target`

    `f` is a row of features, `||.||` is the Euclidean norm, and `r(||f||)` is the
    norm without a gradient. The value of the loss is always `2 step^2`, so it does
    not show progress. Watch the norms instead. The gradient does the work: it is
    `-2 step f / ||f|| / n` for one row of `n`, and 0 for a row of zeros.

    Call the loss as `loss(source, target)` with matrices `(batch, d)`. The two batches
    may differ in size.

    Args:
        step: Positive number, the increase of the norm in units of the features.
            Defaults to 1.0.
        name: String, the name of the loss. Defaults to `None`, which makes a name
            from the class.

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
        return self._domain_value(source) + self._domain_value(target)

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {"step": self.step}

    def _domain_value(self, features: object) -> object:
        norm = _norm(features)
        return ops.mean(ops.square(norm - ops.stop_gradient(norm) - self.step))


def _norm(features: object) -> object:
    # The gradient of the root is infinite at 0. The outer `where` alone would multiply
    # it by 0, which gives NaN.
    square = ops.sum(ops.square(features), axis=1)
    is_positive = square > 0
    root = ops.sqrt(ops.where(is_positive, square, ops.ones_like(square)))
    return ops.where(is_positive, root, ops.zeros_like(root))
