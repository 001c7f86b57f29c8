"""ClassConfusion: how far the predictions for the target mix up the classes."""

import keras
from keras import ops

from keras_transfer._arguments import positive
from keras_transfer.losses.batch_loss import BatchLoss
from keras_transfer.losses.batch_loss import check_matrix
from keras_transfer.losses.batch_loss import log_probabilities


@keras.saving.register_keras_serializable(package="keras_transfer")
class ClassConfusion(BatchLoss):
    """Minimum class confusion: how far predictions of the target mix up classes (MCC).

    A classifier wavers on the target between classes that look alike. With `Y_ij` the
    probability of class `j` for example `i` of `n`, of `m` classes, at a temperature
    `T`, `Y_ij = exp(z_ij / T) / sum_k exp(z_ik / T)`, of logits `z`:

    `L = 1/m sum_{j != k} A_jk / sum_l A_jl`, `A_jk = sum_i W_i Y_ij Y_ik`

    `W_i = n (1 + exp(-H_i)) / sum_l (1 + exp(-H_l))`, `H_i = -sum_j Y_ij log Y_ij`

    so that examples predicted with certainty count more. As in the authors' code no
    gradient flows through the weights `W`. It is 0 where all is certain and
    `1 - 1/m` where all is uniform. It needs neither source features nor a second
    network. The batch should hold several examples of a class: a class without any
    (its probabilities add up to less than 1e-7) counts as not confused.

    Called as `loss(source, target)` with the outputs `(batch, m)` for the target;
    source is not used and may be None.

    Args:
        temperature: `T`, a positive number; higher means softer probabilities.
        from_logits: Whether the outputs are logits; if False, probabilities, whose
            logarithms are divided by `T`.
        name: Name of the loss; None makes one from the class.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        confusion = kt.losses.ClassConfusion()
        certain = np.array([[90.0, 0.0], [0.0, 90.0]])
        assert float(confusion(None, certain)) < 1e-6
        assert float(confusion(None, np.zeros((2, 2)))) == 0.5  # 1 - 1/2
        ```

    Raises:
        ValueError: If `temperature` is not positive and finite. When called, if target
            is no matrix of two or more classes.

    Reference:
        Jin, Wang, Long and Wang, 2020, "Minimum Class Confusion for Versatile Domain
        Adaptation", arXiv 1912.03699.
    """

    def __init__(
        self,
        *,
        temperature: float = 2.5,
        from_logits: bool = True,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.temperature = positive("temperature", temperature)
        self.from_logits = bool(from_logits)

    def value(self, source: object, target: object) -> object:
        """Return the loss of one replica's target batch as a scalar."""
        check_matrix("target", target, columns=2)
        logits = target
        if not self.from_logits:
            logits = log_probabilities(target, from_logits=False)
        log_softened = ops.log_softmax(logits / self.temperature)
        softened = ops.exp(log_softened)
        entropy = -ops.sum(softened * log_softened, axis=1, keepdims=True)
        weight = ops.stop_gradient(1.0 + ops.exp(-entropy))
        weight = weight / ops.mean(weight)
        confusion = ops.matmul(ops.transpose(softened), weight * softened)
        total = ops.sum(confusion, axis=1, keepdims=True)
        confusion = confusion / ops.maximum(total, keras.config.epsilon())
        return (ops.sum(confusion) - ops.trace(confusion)) / target.shape[1]

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {
            "temperature": self.temperature,
            "from_logits": self.from_logits,
        }
