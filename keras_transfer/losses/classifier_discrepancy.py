"""ClassifierDiscrepancy: how much two classifiers disagree."""

import keras
from keras import ops

from keras_transfer.losses.batch_loss import BatchLoss
from keras_transfer.losses.batch_loss import check_matrix
from keras_transfer.losses.batch_loss import differ
from keras_transfer.losses.batch_loss import probabilities


@keras.saving.register_keras_serializable(package="keras_transfer")
class ClassifierDiscrepancy(BatchLoss):
    """Mean absolute difference of the probabilities of two classifiers (MCD).

    Two heads that agree on the source disagree on target examples that are far from
    the source. On the target, the heads are trained to disagree, and the feature
    extractor is trained to make the heads agree:

    `L = 1/(n m) sum_i sum_j |p_ij - q_ij|`

    `p_ij` is the probability that the first head gives to class `j` of `m` for example
    `i` of `n`, and `q_ij` is the probability from the second head. The loss is between
    0 and `2/m`.

    Call the loss as `loss(first_outputs, second_outputs)` with the outputs `(batch,
    m)` of both heads for the same target examples.

    Args:
        from_logits: Boolean, whether the outputs are logits. If `False`, they are
            probabilities. Defaults to `True`.
        name: String, the name of the loss. Defaults to `None`, which makes a name
            from the class.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        discrepancy = kt.losses.ClassifierDiscrepancy(from_logits=False)
        first, second = np.array([[1.0, 0.0]]), np.array([[0.75, 0.25]])
        assert float(discrepancy(first, second)) == 0.25
        ```

    Raises:
        ValueError: When called, if the outputs are not two matrices of the same shape
            with two or more classes.

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
                f"The outputs of the heads have the shapes {tuple(source.shape)} and "
                f"{tuple(target.shape)}, but they must have the same shape. Pass the "
                "outputs of both heads for the same examples and classes."
            )
        first = probabilities(source, self.from_logits)
        second = probabilities(target, self.from_logits)
        return ops.mean(ops.abs(first - second))

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {"from_logits": self.from_logits}
