"""ThawSchedule: a learning rate that warms up where layer groups thaw."""

from __future__ import annotations

from collections.abc import Iterable

import keras
from keras import ops

from keras_transfer._arguments import positive
from keras_transfer._arguments import whole_number


@keras.saving.register_keras_serializable(package="keras_transfer")
class ThawSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate that rises from near 0 at each thaw, and falls to 0 at the end.

    A pretrained layer that starts at the full rate can lose what it has learned before
    the moments of the optimizer are estimates. With step t, the last thaw s before or
    at t, the first thaw f, w warm-up steps and T total steps:

        rate = peak                                                 where t < f
               peak * min(1, (t - s + 1) / w) * (T - t) / (T - f)   elsewhere

    Args:
        peak_learning_rate: Float above 0, the highest learning rate.
        total_steps: Int of at least 1, the number of updates.
        thaws: The updates at which layer groups thaw, in order, below `total_steps`.
        warmup_steps: Int of at least 1, the number of updates of each warm-up.
    """

    def __init__(
        self,
        peak_learning_rate: float,
        total_steps: int,
        thaws: Iterable[int],
        warmup_steps: int,
    ) -> None:
        super().__init__()
        self.peak_learning_rate = positive("peak_learning_rate", peak_learning_rate)
        self.total_steps = whole_number("total_steps", total_steps)
        self.thaws = [whole_number("thaws", step, 0) for step in thaws]
        self.warmup_steps = whole_number("warmup_steps", warmup_steps)

    def __call__(self, step: object) -> object:
        """Return the learning rate of an update."""
        step = ops.cast(step, "float32")
        thaws = ops.convert_to_tensor(self.thaws, "float32")
        first, last = self.thaws[0], float(self.total_steps)
        latest = ops.max(ops.where(thaws <= step, thaws, -last))
        warm = ops.minimum((step - latest + 1) / self.warmup_steps, 1.0)
        left = ops.maximum((last - step) / (last - first), 0.0)
        factor = ops.where(step < first, 1.0, warm * left)
        return self.peak_learning_rate * factor

    def get_config(self) -> dict:
        """Return the arguments."""
        return {
            "peak_learning_rate": self.peak_learning_rate,
            "total_steps": self.total_steps,
            "thaws": self.thaws,
            "warmup_steps": self.warmup_steps,
        }
