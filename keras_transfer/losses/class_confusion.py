"""ClassConfusion: how much the predictions for the target confuse the classes."""

import keras
from keras import ops

from keras_transfer._arguments import positive
from keras_transfer.losses.batch_loss import BatchLoss
from keras_transfer.losses.batch_loss import check_matrix
from keras_transfer.losses.batch_loss import log_probabilities


@keras.saving.register_keras_serializable(package="keras_transfer")
class ClassConfusion(BatchLoss):
    """Minimum class confusion (MCC): how much predictions confuse target classes.

    On the target a classifier often hesitates between similar classes. The loss
    measures this for `n` target examples and `m` classes:

    `L = 1/m sum_{j != k} A_jk / sum_l A_jl`, `A_jk = sum_i W_i Y_ij Y_ik`

    `Y_ij = exp(z_ij / T) / sum_k exp(z_ik / T)` is the probability of class `j` for
    example `i`, from the logits `z` and the temperature `T`. The weights `W` give
    more influence to examples with certain predictions:

    `W_i = n (1 + exp(-H_i)) / sum_l (1 + exp(-H_l))`, `H_i = -sum_j Y_ij log Y_ij`

    As in the authors' code, no gradient flows through `W`. The loss is 0 if all
    predictions are certain and `1 - 1/m` if all are uniform. The loss needs no source
    features and no second network. A batch should contain several examples of each
    class. A class without examples (its probabilities add up to less than 1e-7)
    counts as not confused.

    Call the loss as `loss(source, target)`, where `target` is the outputs `(batch,
    m)` for the target examples. `source` is not used and may be `None`.

    Args:
        temperature: Positive number `T`; higher values give softer probabilities.
            Defaults to 2.5.
        from_logits: Boolean, whether the outputs are logits. If `False`, they are
            probabilities, and their logarithms are divided by `T`. Defaults to
            `True`.
        name: String, the name of the loss. Defaults to `None`, which makes a name
            from the class.

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
        ValueError: If `temperature` is not positive and finite. When called, if
            `target` is not a matrix with two or more classes.

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
