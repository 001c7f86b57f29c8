"""MarginDisparity: how much an adversary disagrees with a classifier on the target."""

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

    The adversary is a second head. It is trained to predict the same class as the
    classifier on the source, and another class on the target. If the adversary
    succeeds, the domains differ for this classifier:

    `L = margin mean over the source of (-log a_y) + mean over the target of
    (-log(1 - a_y))`

    `y = argmax_j f_j` is the class that the classifier predicts, and `a_j` are the
    probabilities of the adversary. The adversary minimizes this loss. With a
    `GradientReversal` in front of the adversary, the features maximize it. No gradient
    flows through `y`, so this loss does not train the head of the classifier. The
    margin is `gamma = exp(rho)` in the paper.

    Call the loss as `loss(source, target)`. Each argument is a pair (outputs,
    adversary_outputs) of logits `(batch, classes)`. The batches of source and target
    may differ in size.

    Args:
        margin: Positive number, the weight `gamma` of the source. The paper uses 2 to
            4. Defaults to 4.0.
        name: String, the name of the loss. Defaults to `None`, which makes a name
            from the class.

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
        ValueError: If `margin` is not positive and finite. When called, if `source` or
            `target` is not a pair of matrices of the same shape with two or more
            classes.

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
                    f"the adversary's outputs {tuple(pair[1].shape)}, but both need "
                    "the same shape. Pass both heads' outputs for the same examples."
                )
        if differ(source[0].shape[1:], target[0].shape[1:]):
            raise ValueError(
                f"The outputs of source have {source[0].shape[1]} classes and the "
                f"outputs of target {target[0].shape[1]}. Use the same classifier for "
                "both."
            )
        source_loss, _ = _class_losses(*source)
        _, target_loss = _class_losses(*target)
        return self.margin * source_loss + target_loss

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {"margin": self.margin}


def _class_losses(outputs: object, adversary: object) -> tuple[object, object]:
    # The means of -log a_y and of -log(1 - a_y), computed with logsumexp: 1 - a_y would
    # be 0 in float32 if the adversary is certain.
    own = ops.one_hot(ops.argmax(outputs, axis=1), outputs.shape[1], dtype="bool")
    least = ops.full_like(adversary, -1e30)
    all_classes = ops.logsumexp(adversary, axis=1)
    chosen = ops.logsumexp(ops.where(own, adversary, least), axis=1)
    others = ops.logsumexp(ops.where(own, least, adversary), axis=1)
    return ops.mean(all_classes - chosen), ops.mean(all_classes - others)
