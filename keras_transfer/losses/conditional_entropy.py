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

    Made small, it pushes the borders between classes away from where target examples
    lie (the cluster assumption):

    `L = -1/n sum_i sum_j p_ij log p_ij`

    with `p_ij` the probability of class `j` for example `i` of `n`. It is 0 where all
    is certain and `log m` where all of `m` classes are alike. By itself it is content
    with one class for all examples, so it comes beside the loss of the source's
    labels, and in VADA beside virtual adversarial training.

    Called as `loss(source, target)` with the outputs `(batch, m)` for the target;
    source is not used and may be None.

    Args:
        from_logits: Whether the outputs are logits; if False, probabilities.
        name: Name of the loss; None makes one from the class.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        entropy = kt.losses.ConditionalEntropy()
        uniform = entropy(None, np.zeros((3, 4)))
        assert abs(float(uniform) - np.log(4)) < 1e-6
        ```

    Raises:
        ValueError: When called, if target is no matrix of two or more classes.

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
