"""The two schedules of domain-adversarial training, by Ganin et al."""

import keras
from keras import ops

from keras_transfer._arguments import number
from keras_transfer._arguments import positive
from keras_transfer._arguments import whole_number


@keras.saving.register_keras_serializable(package="keras_transfer")
class GaninRampUp(keras.optimizers.schedules.LearningRateSchedule):
    """Schedule for the strength of gradient reversal: a sigmoid rise from 0 to `end`.

    In the first steps, the output of the domain classifier is noise, so the features
    should not follow it. The strength therefore starts at 0. Most of the rise is over
    in the first half. With total steps T, step t and p = min(t / T, 1):

        strength = end * (2 / (1 + exp(-gamma * p)) - 1)

    The code computes this as `end * tanh(gamma * p / 2)`, because the difference loses
    digits in float32 if p is small. At step T the strength is `0.9999 * end` with the
    default gamma. After T it stays constant. This schedule is not a learning rate. Pass
    it as the strength of a `kt.layers.GradientReversal`.

    Args:
        total_steps: Int of at least 1, the number of optimizer steps: batches per epoch
            times epochs.
        gamma: Float above 0, how steep the rise is. Defaults to 10.0, as in the paper.
        end: Float of at least 0, the strength that the rise approaches. Defaults to
            1.0.

    Example:
        ```python
        import keras_transfer as kt

        strength = kt.optimizers.GaninRampUp(total_steps=100)
        assert float(strength(0)) == 0.0
        assert abs(float(strength(10)) - 0.4621) < 1e-4
        assert float(strength(100)) > 0.999
        ```

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Ganin et al., 2016, "Domain-Adversarial Training of Neural Networks",
        JMLR 17(59), arXiv 1505.07818, section 5.2.2.
    """

    def __init__(self, total_steps: int, *, gamma: float = 10.0, end: float = 1.0):
        self.total_steps = _checked_steps(total_steps)
        self.gamma = positive("gamma", gamma)
        self.end = number("end", end, 0, why="GradientReversal adds the minus sign")

    def __call__(self, step: object) -> object:
        """Return the strength at `step`, a float32 scalar."""
        return self.end * ops.tanh(0.5 * self.gamma * _progress(step, self.total_steps))

    def get_config(self) -> dict:
        """Return the arguments."""
        return {
            "total_steps": self.total_steps,
            "gamma": self.gamma,
            "end": self.end,
        }


@keras.saving.register_keras_serializable(package="keras_transfer")
class GaninDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate schedule of domain-adversarial training: an inverse power decay.

    The learning rate falls while the strength of `GaninRampUp` rises, so the
    adversarial training of features and domain classifier becomes stable. With total
    steps T, step t and p = min(t / T, 1):

        rate = initial_learning_rate / (1 + alpha * p) ** beta

    The paper trains with SGD, momentum 0.9 and an initial rate of 0.01. With the
    default alpha and beta, the last rate is 0.166 times the initial rate. After T the
    rate stays constant. With beta 1 the schedule equals
    `keras.optimizers.schedules.InverseTimeDecay` with `decay_steps=total_steps` and
    `decay_rate=alpha`.

    Args:
        initial_learning_rate: Float above 0, the first and highest learning rate.
        total_steps: Int of at least 1, the number of optimizer steps: batches per epoch
            times epochs.
        alpha: Float of at least 0, how far the rate falls. Defaults to 10.0, as in the
            paper.
        beta: Float of at least 0, the power of the decay. Defaults to 0.75, as in the
            paper.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        rate = kt.optimizers.GaninDecay(0.01, total_steps=100)
        assert abs(float(rate(0)) - 0.01) < 1e-9
        assert abs(float(rate(100)) - 0.01 / 11**0.75) < 1e-9
        optimizer = keras.optimizers.SGD(rate, momentum=0.9)
        ```

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Ganin et al., 2016, "Domain-Adversarial Training of Neural Networks",
        JMLR 17(59), arXiv 1505.07818, section 5.2.2.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        total_steps: int,
        *,
        alpha: float = 10.0,
        beta: float = 0.75,
    ):
        self.initial_learning_rate = positive(
            "initial_learning_rate", initial_learning_rate
        )
        self.total_steps = _checked_steps(total_steps)
        self.alpha = number("alpha", alpha, 0, why="the rate must not rise")
        self.beta = number("beta", beta, 0, why="the rate must not rise")

    def __call__(self, step: object) -> object:
        """Return the learning rate at `step`, a float32 scalar."""
        fallen = ops.power(
            1.0 + self.alpha * _progress(step, self.total_steps), -self.beta
        )
        return self.initial_learning_rate * fallen

    def get_config(self) -> dict:
        """Return the arguments."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "total_steps": self.total_steps,
            "alpha": self.alpha,
            "beta": self.beta,
        }


def _progress(step: object, total_steps: int) -> object:
    return ops.minimum(ops.cast(step, "float32") / float(total_steps), 1.0)


def _checked_steps(total_steps: float) -> int:
    why = "batches per epoch times epochs"
    return whole_number("total_steps", total_steps, floats=True, why=why)
