"""ClassifierDiscrepancy: how far two classifiers disagree."""

import keras
from keras import ops

from keras_transfer.losses.batch_loss import BatchLoss
from keras_transfer.losses.batch_loss import check_matrix
from keras_transfer.losses.batch_loss import differ
from keras_transfer.losses.batch_loss import probabilities


@keras.saving.register_keras_serializable(package="keras_transfer")
class ClassifierDiscrepancy(BatchLoss):
    """Mean absolute difference of the probabilities of two classifiers (MCD).

    Two heads that agree on the source disagree on target examples far from it. The
    heads are trained to disagree there, the feature extractor to make them agree:

    `L = 1/(n m) sum_i sum_j |p_ij - q_ij|`

    with `p_ij` and `q_ij` the probabilities of class `j` of `m` for example `i` of `n`
    by the first and by the second head. It lies between 0 and `2/m`.

    Called as `loss(first_outputs, second_outputs)` with the outputs `(batch, m)` of
    both heads for the same target examples.

    Args:
        from_logits: Whether the outputs are logits; if False, probabilities.
        name: Name of the loss; None makes one from the class.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        discrepancy = kt.losses.ClassifierDiscrepancy(from_logits=False)
        first, second = np.array([[1.0, 0.0]]), np.array([[0.75, 0.25]])
        assert float(discrepancy(first, second)) == 0.25
        ```

    Raises:
        ValueError: When called, if the outputs are no matrices of two or more classes
            with the same shape.

    Reference:
        Saito, Watanabe, Ushiku and Harada, 2018, "Maximum Classifier Discrepancy for
        Unsupervised Domain Adaptation", arXiv 1712.02560.
    """

    def __init__(self, *, from_logits: bool = True, name: str | None = None):
        super().__init__(name=name)
        self.from_logits = bool(from_logits)

    def value(self, source: object, target: object) -> object:
        """Return the discrepancy of two heads on one replica's batch as a scalar."""
        check_matrix("The first head's output", source, columns=2)
        check_matrix("The second head's output", target, columns=2)
        if differ(source.shape, target.shape):
            raise ValueError(
                f"The heads' outputs have the shapes {tuple(source.shape)} and "
                f"{tuple(target.shape)}: both need to be of the same examples and "
                "classes."
            )
        first = probabilities(source, self.from_logits)
        second = probabilities(target, self.from_logits)
        return ops.mean(ops.abs(first - second))

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {"from_logits": self.from_logits}
