"""Schedules that rise and then fall in straight lines: ULMFiT's and BERT's."""

import math

import keras
from keras import ops

from keras_transfer._arguments import fraction
from keras_transfer._arguments import number
from keras_transfer._arguments import positive
from keras_transfer._arguments import whole_number


@keras.saving.register_keras_serializable(package="keras_transfer")
class SlantedTriangular(keras.optimizers.schedules.LearningRateSchedule):
    """Rise fast to the peak, then fall slowly: the schedule of ULMFiT.

    A short rise finds a good region for the new task; the long fall refines
    it. With total steps T, step t, c = `cut_fraction`, r = `ratio`:

        cut  = floor(T * c)
        p    = t / cut                              where t < cut
               1 - (t - cut) / (cut * (1 / c - 1))  elsewhere
        rate = peak * (1 + p * (r - 1)) / r

    so the rate starts and ends at `peak / ratio`. `p` is held at 0 from below:
    where `T * c` is no whole number the formula reaches 0 some steps early and
    would then turn the rate negative. Beyond T the rate stays at `peak / ratio`.
    Where `cut` is 0 (fewer than 1 / c steps) there is no rise: the rate starts
    at the peak and falls over all T steps.

    Args:
        peak_learning_rate: The highest rate, per step; positive.
        total_steps: Number of optimizer steps, 1 or more: batches an epoch
            times epochs.
        cut_fraction: Fraction of the steps in which the rate rises, in [0, 1].
            Defaults to 0.1.
        ratio: How many times smaller the lowest rate is than the peak, 1 or
            more. Defaults to 32.

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
        number("ratio", ratio, 1, why="the peak is so many times the lowest rate")
        self.ratio = ratio

    def __call__(self, step: object) -> object:
        """Return the rate of a step, a float32 scalar."""
        cut = _whole(self.total_steps * self.cut_fraction)
        fall = self.total_steps
        if cut:
            # At least one step, since nothing is left where cut_fraction is 1.
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
    """Rise in a line from 0 to the peak, then fall in a line to 0, as BERT does.

    Adam's second moments are rough in the first steps; a warm-up keeps these
    small, which matters most when a pretrained network is to be kept. With
    total steps T, step t and w warm-up steps:

        rate = peak * t / w              where t < w
               peak * (T - t) / (T - w)  elsewhere, and 0 beyond T

    Keras has no such schedule: `PolynomialDecay` has no warm-up, and the
    warm-up of `CosineDecay` is followed by a cosine. It equals Hugging Face's
    `get_linear_schedule_with_warmup`; BERT's first code falls along
    `1 - t / T` instead, so it drops by the factor `1 - w / T` at the peak.

    Args:
        peak_learning_rate: The highest rate, per step; positive.
        total_steps: Number of optimizer steps, 1 or more: batches an epoch
            times epochs.
        warmup_fraction: Fraction of the steps in which the rate rises, in
            [0, 1]. Defaults to 0.1.
        warmup_steps: Number of steps in which the rate rises, at most
            `total_steps`. Given, it takes the place of `warmup_fraction`.
            Defaults to `None`.

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
                    f"warmup_steps is {warmup_steps}, but there are only "
                    f"{total_steps} steps in all, so the peak is never reached."
                )
        self.warmup_steps = warmup_steps

    def __call__(self, step: object) -> object:
        """Return the rate of a step, a float32 scalar."""
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
    # 0.29 * 100 is 28.999999999999996; that is a rounding, not a step less.
    return math.floor(steps + 1e-9 * max(1.0, steps))
