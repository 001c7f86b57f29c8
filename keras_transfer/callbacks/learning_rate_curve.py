"""The curve of a learning rate range test, and the rate that it suggests."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class LearningRateCurve:
    """The smoothed loss over the learning rate, as `find_learning_rate` saw it.

    Args:
        rates: Array of the rates that were tried, rising, per step.
        losses: Array of the smoothed losses; `losses[i]` is the exponential average up
            to the batch that was trained at `rates[i]`, taken before that update.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        rates = np.geomspace(1e-4, 1.0, 9)
        losses = np.array([1.0, 0.99, 0.97, 0.9, 0.7, 0.5, 0.3, 0.4, 2.0])
        curve = kt.callbacks.LearningRateCurve(rates, losses)
        assert 1e-3 < curve.suggestion < 1e-1
        axes = curve.plot()
        ```

    Reference:
        Smith 2017, Cyclical Learning Rates for Training Neural Networks,
        arXiv:1506.01186, section 3.3.
    """

    rates: np.ndarray
    losses: np.ndarray

    @property
    def suggestion(self) -> float | None:
        """The rate in the longest valley, or None if the loss never fell.

        This is the rule "valley" of fastai's `Learner.lr_find`: find the longest
        falling subsequence of the losses, which noise interrupts but does not end, and
        go back from its end by half as many steps as it has points. It takes no
        derivative, so that one lucky batch does not decide, and stays well below the
        rate where the loss starts to rise.
        """
        longest, end = _longest_fall(self.losses)
        if longest < 2 or np.min(self.losses) >= self.losses[0]:
            return None
        return float(self.rates[end - longest // 2])

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


def _longest_fall(losses: np.ndarray) -> tuple[int, int]:
    """Return length and last index of the longest falling subsequence."""
    lengths = np.ones(len(losses), int)
    for index in range(1, len(losses)):
        above = lengths[:index][losses[:index] > losses[index]]
        lengths[index] += above.max(initial=0)
    return int(lengths.max()), int(lengths.argmax())
