"""The loss curve of a learning rate range test, and the rate that it suggests."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class LearningRateCurve:
    """The smoothed loss over the learning rate, as `find_learning_rate` measured it.

    Print the curve to see which learning rates were tried, which rate it suggests, and
    why.

    Args:
        rates: Array of the learning rates that were tried, in rising order, one for
            each step.
        losses: Array of the smoothed losses. `losses[i]` is the exponential average up
            to the batch of step i, before the update at `rates[i]`.
        ended: String, why the test ended. It is printed. Defaults to "".

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        rates = np.geomspace(1e-4, 1.0, 9)
        losses = np.array([1.0, 0.99, 0.97, 0.9, 0.7, 0.5, 0.3, 0.4, 2.0])
        curve = kt.callbacks.LearningRateCurve(rates, losses)
        assert 1e-3 < curve.suggestion < 1e-1
        print(curve)
        axes = curve.plot()
        ```

    Reference:
        Smith 2017, Cyclical Learning Rates for Training Neural Networks,
        arXiv:1506.01186, section 3.3.
    """

    rates: np.ndarray
    losses: np.ndarray
    ended: str = ""

    @property
    def suggestion(self) -> float | None:
        """The suggested learning rate, or None if the loss never fell.

        This is the rule "valley" of fastai's `Learner.lr_find`. It finds the longest
        falling subsequence of the losses. Noise interrupts this subsequence but does
        not end it. From the end of the subsequence, the rule goes back by half of its
        number of points. The rule uses no derivative, so a single batch with a low loss
        does not decide. The suggestion is well below the rate where the loss rises.
        """
        fall = _longest_fall(self.losses)
        if not self._falls(fall):
            return None
        return float(self.rates[fall[-1] - len(fall) // 2])

    def __str__(self) -> str:
        rates, losses = self.rates, self.losses
        ended = f"; {self.ended}" if self.ended else ""
        best = int(np.argmin(losses))
        lines = [
            f"{len(rates)} steps at learning rates from {rates[0]:.2g} to "
            f"{rates[-1]:.2g}{ended}",
            f"smoothed loss: {losses[0]:.4g} at first, {losses[best]:.4g} at lowest, "
            f"at the rate {rates[best]:.2g}",
        ]
        fall = _longest_fall(losses)
        if self._falls(fall):
            lines.append(
                f"suggestion: {self.suggestion:.2g}, the middle of the longest fall of "
                f"the loss, from {rates[fall[0]]:.2g} to {rates[fall[-1]]:.2g}"
            )
        else:
            lines.append(
                "no suggestion: the loss never fell. Try more steps, larger batches "
                "or another range of learning rates."
            )
        return "\n".join(lines)

    def _falls(self, fall: list[int]) -> bool:
        return len(fall) > 1 and np.min(self.losses) < self.losses[0]

    def plot(self, ax: Any = None) -> Any:
        """Draw the curve with matplotlib, and mark the suggestion.

        Args:
            ax: The matplotlib axes to draw on. Defaults to None, which creates new
                axes.

        Returns:
            The axes.
        """
        if ax is None:
            from matplotlib import pyplot

            _, ax = pyplot.subplots()
        ax.plot(self.rates, self.losses)
        ax.set_xscale("log")
        ax.set_xlabel("learning rate")
        ax.set_ylabel("smoothed loss")
        if self.suggestion is not None:
            label = f"suggestion {self.suggestion:.2g}"
            height = np.interp(self.suggestion, self.rates, self.losses)
            ax.axvline(self.suggestion, color="tab:red", linestyle=":")
            ax.plot([self.suggestion], [height], "o", color="tab:red", label=label)
            ax.legend()
        return ax


def _longest_fall(losses: np.ndarray) -> list[int]:
    """Return the indices of the longest falling subsequence."""
    lengths, before = np.ones(len(losses), int), np.full(len(losses), -1)
    for index in range(1, len(losses)):
        above = np.where(losses[:index] > losses[index], lengths[:index], 0)
        if above.max() > 0:
            before[index] = int(above.argmax())
            lengths[index] += above.max()
    fall = [int(lengths.argmax())]
    while before[fall[-1]] >= 0:
        fall.append(int(before[fall[-1]]))
    return fall[::-1]
