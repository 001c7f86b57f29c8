"""ConditionalEntropy: how uncertain the predictions for the target are."""

import keras
from keras import ops

from keras_transfer.losses.batch_loss import BatchLoss
from keras_transfer.losses.batch_loss import check_matrix
from keras_transfer.losses.batch_loss import log_probabilities
from keras_transfer.losses.batch_loss import probabilities


@keras.saving.register_keras_serializable(package="keras_transfer")
class ConditionalEntropy(BatchLoss):
    """Mean entropy of the predictions for the target, in nats.

    Minimizing this loss moves the class boundaries away from dense regions of the
    target (the cluster assumption):

    `L = -1/n sum_i sum_j p_ij log p_ij`

    `p_ij` is the probability of class `j` of `m` for example `i` of `n`. The loss is 0
    if all predictions are certain and `log m` if all are uniform. Predicting one class
    for all examples also minimizes this loss, so add it to the loss of the source
    labels. VADA also adds virtual adversarial training.

    Call the loss as `loss(source, target)`, where `target` is the outputs `(batch,
    m)` for the target examples. `source` is not used and may be `None`.

    Args:
        from_logits: Boolean, whether the outputs are logits. If `False`, they are
            probabilities. Defaults to `True`.
        name: String, the name of the loss. Defaults to `None`, which makes a name
            from the class.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        entropy = kt.losses.ConditionalEntropy()
        uniform = entropy(None, np.zeros((3, 4)))
        assert abs(float(uniform) - np.log(4)) < 1e-6
        ```

    Raises:
        ValueError: When called, if `target` is not a matrix with two or more classes.

    Reference:
        Grandvalet and Bengio, 2005, "Semi-supervised Learning by Entropy
        Minimization", NIPS 17; Shu, Bui, Narui and Ermon, 2018, "A DIRT-T Approach to
        Unsupervised Domain Adaptation", arXiv 1802.08735 (VADA).
    """

    def __init__(self, *, from_logits: bool = True, name: str | None = None):
        super().__init__(name=name)
        self.from_logits = bool(from_logits)

    def value(self, source: object, target: object) -> object:
        """Return the loss of one replica's target batch as a scalar."""
        check_matrix("target", target, columns=2)
        logarithm = log_probabilities(target, self.from_logits)
        product = probabilities(target, self.from_logits) * logarithm
        return -ops.mean(ops.sum(product, axis=1))

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {"from_logits": self.from_logits}
