"""The curve of a learning rate range test, and the rate that it suggests."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class LearningRateCurve:
    """The smoothed loss over the learning rate, as `find_learning_rate` saw it.

    Printing it shows which rates were tried, which one it suggests, and why.

    Args:
        rates: Array of the rates that were tried, rising, per step.
        losses: Array of the smoothed losses; `losses[i]` is the exponential average up
            to the batch that was trained at `rates[i]`, taken before that update.
        ended: Why the test ended there, to be printed. Default "".

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
        """The rate in the longest valley, or None if the loss never fell.

        This is the rule "valley" of fastai's `Learner.lr_find`: find the longest
        falling subsequence of the losses, which noise interrupts but does not end, and
        go back from its end by half as many steps as it has points. It takes no
        derivative, so that one lucky batch does not decide, and stays well below the
        rate where the loss starts to rise.
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
                "no suggestion: the loss never fell. Take more steps, larger batches "
                "or another range of rates."
            )
        return "\n".join(lines)

    def _falls(self, fall: list[int]) -> bool:
        return len(fall) > 1 and np.min(self.losses) < self.losses[0]

    def plot(self, ax: Any = None) -> Any:
        """Draw the curve with matplotlib, the suggestion marked.

        Args:
            ax: The matplotlib axes to draw on. Default None, which makes new ones.

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
