"""MarginDisparity: how far an adversary can leave a classifier on the target alone."""

import keras
from keras import ops

from keras_transfer._arguments import positive
from keras_transfer.losses.batch_loss import BatchLoss
from keras_transfer.losses.batch_loss import check_matrix
from keras_transfer.losses.batch_loss import check_pair
from keras_transfer.losses.batch_loss import differ


@keras.saving.register_keras_serializable(package="keras_transfer")
class MarginDisparity(BatchLoss):
    """Margin disparity discrepancy, as the loss of its adversary (MDD).

    A second head, the adversary, tries to predict what the classifier predicts on the
    source, and something else on the target. Where it can, the domains differ for this
    classifier. With `y = argmax_j f_j` the classifier's own class and `a_j` the
    adversary's probabilities:

    `L = margin mean over the source of (-log a_y) + mean over the target of
    (-log(1 - a_y))`

    The adversary minimizes it and the features maximize it, by a `GradientReversal` in
    front of the adversary. The classes `y` carry no gradient, so none reaches the
    classifier's head from here. The margin is the paper's `gamma = exp(rho)`.

    Called as `loss(source, target)`; each is a pair (outputs, adversary_outputs) of
    logits `(batch, classes)`. The batches of source and target may differ in size.

    Args:
        margin: The weight `gamma` of the source, a positive number; the paper takes
            2 to 4.
        name: Name of the loss; None makes one from the class.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        outputs, undecided = np.array([[3.0, 1.0]]), np.zeros((1, 2))
        disparity = kt.losses.MarginDisparity(margin=3.0)
        loss = disparity((outputs, undecided), (outputs, undecided))
        assert abs(float(loss) - 4 * np.log(2)) < 1e-6
        ```

    Raises:
        ValueError: If `margin` is not positive and finite. When called, if source or
            target is no pair of matrices of two or more classes of the same shape.

    Reference:
        Zhang, Liu, Long and Jordan, 2019, "Bridging Theory and Algorithm for Domain
        Adaptation", arXiv 1904.05801.
    """

    def __init__(self, *, margin: float = 4.0, name: str | None = None):
        super().__init__(name=name)
        self.margin = positive("margin", margin)

    def value(self, source: object, target: object) -> object:
        """Return the adversary's loss on one replica's batches as a scalar."""
        for name, pair in (("source", source), ("target", target)):
            check_pair(name, pair, "outputs", "adversary_outputs")
            check_matrix(f"The output of {name}", pair[0], columns=2)
            check_matrix(f"The adversary's output of {name}", pair[1], columns=2)
            if differ(pair[0].shape, pair[1].shape):
                raise ValueError(
                    f"The outputs of {name} have the shape {tuple(pair[0].shape)} and "
                    f"its adversary's {tuple(pair[1].shape)}: both need the same."
                )
        if differ(source[0].shape[1:], target[0].shape[1:]):
            raise ValueError(
                f"The outputs of source have {source[0].shape[1]} classes and those "
                f"of target {target[0].shape[1]}: both need the same classifier."
            )
        confirm, _ = _surprise(*source)
        _, avoid = _surprise(*target)
        return self.margin * confirm + avoid

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {"margin": self.margin}


def _surprise(outputs: object, adversary: object) -> tuple[object, object]:
    # The means of -log a_y and of -log(1 - a_y), as differences of logarithms of sums:
    # 1 - a_y itself is 0 in float32 once the adversary is sure.
    own = ops.one_hot(ops.argmax(outputs, axis=1), outputs.shape[1], dtype="bool")
    least = ops.full_like(adversary, -1e30)
    all_classes = ops.logsumexp(adversary, axis=1)
    chosen = ops.logsumexp(ops.where(own, adversary, least), axis=1)
    others = ops.logsumexp(ops.where(own, least, adversary), axis=1)
    return ops.mean(all_classes - chosen), ops.mean(all_classes - others)
