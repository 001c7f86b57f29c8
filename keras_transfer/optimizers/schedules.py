"""The linear learning rate schedules of ULMFiT and BERT, with warm-up and decay."""

import math

import keras
from keras import ops

from keras_transfer._arguments import fraction
from keras_transfer._arguments import number
from keras_transfer._arguments import positive
from keras_transfer._arguments import whole_number


@keras.saving.register_keras_serializable(package="keras_transfer")
class SlantedTriangular(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate schedule of ULMFiT: a short rise to the peak, then a long fall.

    The short rise finds a good region for the new task, and the long fall refines the
    weights. With total steps T, step t, c = `cut_fraction`, r = `ratio`:

        cut  = floor(T * c)
        p    = t / cut                              where t < cut
               1 - (t - cut) / (cut * (1 / c - 1))  elsewhere
        rate = peak * (1 + p * (r - 1)) / r

    The rate starts and ends at `peak / ratio`, and stays there after T. `p` is limited
    to values of at least 0. In the paper's formula, p and the rate can be negative in
    the last steps if `T * c` is not a whole number. If `cut` is 0 (fewer than 1 / c
    steps), there is no rise. The rate then starts at the peak and falls over all T
    steps.

    Args:
        peak_learning_rate: Float above 0, the highest learning rate.
        total_steps: Int of at least 1, the number of optimizer steps: batches per epoch
            times epochs.
        cut_fraction: Float in [0, 1], the fraction of the steps in which the rate
            rises. Defaults to 0.1.
        ratio: Float of at least 1, the peak divided by the lowest rate. Defaults to 32.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        schedule = kt.optimizers.SlantedTriangular(0.32, total_steps=100)
        assert abs(float(schedule(0)) - 0.01) < 1e-7
        assert abs(float(schedule(10)) - 0.32) < 1e-7
        optimizer = keras.optimizers.Adam(schedule)
        ```

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Howard and Ruder, 2018, "Universal Language Model Fine-tuning for Text
        Classification", arXiv 1801.06146, equation 3.
    """

    def __init__(
        self,
        peak_learning_rate: float,
        total_steps: int,
        *,
        cut_fraction: float = 0.1,
        ratio: float = 32,
    ):
        self.peak_learning_rate = positive("peak_learning_rate", peak_learning_rate)
        self.total_steps = whole_number("total_steps", total_steps, floats=True)
        self.cut_fraction = fraction("cut_fraction", cut_fraction)
        number("ratio", ratio, 1, why="it is the peak divided by the lowest rate")
        self.ratio = ratio

    def __call__(self, step: object) -> object:
        """Return the learning rate at `step`, a float32 scalar."""
        cut = _whole(self.total_steps * self.cut_fraction)
        fall = self.total_steps
        if cut:
            # At least one step, because no step is left if cut_fraction is 1.
            fall = max(cut * (1 / self.cut_fraction - 1), 1.0)
        t = ops.minimum(ops.cast(step, "float32"), float(self.total_steps))
        rising = t / max(cut, 1)
        falling = ops.maximum(1.0 - (t - cut) / fall, 0.0)
        p = ops.where(t < cut, rising, falling)
        return self.peak_learning_rate * (1.0 + p * (self.ratio - 1.0)) / self.ratio

    def get_config(self) -> dict:
        """Return the arguments."""
        return {
            "peak_learning_rate": self.peak_learning_rate,
            "total_steps": self.total_steps,
            "cut_fraction": self.cut_fraction,
            "ratio": self.ratio,
        }


@keras.saving.register_keras_serializable(package="keras_transfer")
class LinearWarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate schedule of BERT: a linear rise from 0, then a linear fall to 0.

    Adam's second moments are inaccurate in the first steps. A warm-up keeps these steps
    small, which protects the weights of a pretrained network. With total steps T, step
    t and w warm-up steps:

        rate = peak * t / w              where t < w
               peak * (T - t) / (T - w)  elsewhere, and 0 beyond T

    Keras does not have this schedule. `PolynomialDecay` has no warm-up, and
    `CosineDecay` falls along a cosine after its warm-up. This schedule equals Hugging
    Face's `get_linear_schedule_with_warmup`. The original BERT code falls along
    `1 - t / T` instead, so its rate drops by the factor `1 - w / T` at the peak.

    Args:
        peak_learning_rate: Float above 0, the highest learning rate.
        total_steps: Int of at least 1, the number of optimizer steps: batches per epoch
            times epochs.
        warmup_fraction: Float in [0, 1], the fraction of the steps in which the rate
            rises. Defaults to 0.1.
        warmup_steps: Int from 0 to `total_steps`, the number of steps in which the rate
            rises. It replaces `warmup_fraction`. Defaults to None, which uses
            `warmup_fraction`.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        schedule = kt.optimizers.LinearWarmupDecay(2e-5, total_steps=100)
        assert float(schedule(0)) == 0.0
        assert abs(float(schedule(55)) - 1e-5) < 1e-10
        optimizer = keras.optimizers.AdamW(schedule)
        ```

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Devlin, Chang, Lee and Toutanova, 2018, "BERT: Pre-training of Deep
        Bidirectional Transformers for Language Understanding",
        arXiv 1810.04805, appendix A.2.
    """

    def __init__(
        self,
        peak_learning_rate: float,
        total_steps: int,
        *,
        warmup_fraction: float = 0.1,
        warmup_steps: int | None = None,
    ):
        self.peak_learning_rate = positive("peak_learning_rate", peak_learning_rate)
        self.total_steps = whole_number("total_steps", total_steps, floats=True)
        self.warmup_fraction = fraction("warmup_fraction", warmup_fraction)
        if warmup_steps is not None:
            warmup_steps = whole_number("warmup_steps", warmup_steps, 0, floats=True)
            if warmup_steps > total_steps:
                raise ValueError(
                    f"warmup_steps={warmup_steps} is more than total_steps="
                    f"{total_steps}, so the rate would never reach its peak. Use "
                    "fewer warm-up steps."
                )
        self.warmup_steps = warmup_steps

    def __call__(self, step: object) -> object:
        """Return the learning rate at `step`, a float32 scalar."""
        warmup = self.warmup_steps
        if warmup is None:
            warmup = _whole(self.total_steps * self.warmup_fraction)
        t = ops.minimum(ops.cast(step, "float32"), float(self.total_steps))
        rising = t / max(warmup, 1)
        falling = (self.total_steps - t) / max(self.total_steps - warmup, 1)
        return self.peak_learning_rate * ops.where(t < warmup, rising, falling)

    def get_config(self) -> dict:
        """Return the arguments."""
        return {
            "peak_learning_rate": self.peak_learning_rate,
            "total_steps": self.total_steps,
            "warmup_fraction": self.warmup_fraction,
            "warmup_steps": self.warmup_steps,
        }


def _whole(steps: float) -> int:
    # 0.29 * 100 is 28.999999999999996 because of rounding, but means 29 steps.
    return math.floor(steps + 1e-9 * max(1.0, steps))
