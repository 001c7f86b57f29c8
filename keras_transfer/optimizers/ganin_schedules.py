"""The two curves of domain-adversarial training: reversal rises, the rate falls."""

import keras
from keras import ops

from keras_transfer._arguments import number
from keras_transfer._arguments import positive
from keras_transfer._arguments import whole_number


@keras.saving.register_keras_serializable(package="keras_transfer")
class GaninRampUp(keras.optimizers.schedules.LearningRateSchedule):
    """Rise from 0 to `end` along a sigmoid: the strength of gradient reversal.

    The domain classifier is noise in the first steps, and features should not
    follow it yet; most of the rise is over in the first half. With total steps
    T, step t and p = min(t / T, 1):

        strength = end * (2 / (1 + exp(-gamma * p)) - 1)

    which is `end * tanh(gamma * p / 2)`, and is computed so, since the difference
    loses digits in float32 where p is small. At T it is `0.9999 * end` with the
    default gamma, and it stays there. Although a schedule, it is not a learning
    rate: pass it as the strength of a `kt.layers.GradientReversal`.

    Args:
        total_steps: Number of optimizer steps, 1 or more: batches an epoch
            times epochs.
        gamma: How steep the rise is, positive. Defaults to 10, as in the paper.
        end: The strength that the rise tends to, 0 or more. Defaults to 1.

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
        self.end = number("end", end, 0, why="the reversal has the minus sign in it")

    def __call__(self, step: object) -> object:
        """Return the strength at a step, a float32 scalar."""
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
    """Fall along an inverse power: the learning rate of domain-adversarial training.

    The rate falls while the strength of `GaninRampUp` rises, so that the game
    between features and domain classifier comes to rest. With total steps T,
    step t and p = min(t / T, 1):

        rate = initial_learning_rate / (1 + alpha * p) ** beta

    The paper trains by SGD of momentum 0.9 with an initial rate of 0.01; the rate
    ends at 0.166 of the first one with the default alpha and beta, and stays there.
    With beta 1 it equals `keras.optimizers.schedules.InverseTimeDecay` with
    `decay_steps=total_steps` and `decay_rate=alpha`.

    Args:
        initial_learning_rate: The first and highest rate, per step; positive.
        total_steps: Number of optimizer steps, 1 or more: batches an epoch
            times epochs.
        alpha: How far the fall goes, 0 or more. Defaults to 10, as in the paper.
        beta: Power of the fall, 0 or more. Defaults to 0.75, as in the paper.

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
        self.alpha = number("alpha", alpha, 0, why="the rate falls")
        self.beta = number("beta", beta, 0, why="the rate falls")

    def __call__(self, step: object) -> object:
        """Return the rate of a step, a float32 scalar."""
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
    why = "batches an epoch times epochs"
    return whole_number("total_steps", total_steps, floats=True, why=why)
