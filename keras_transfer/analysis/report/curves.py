"""The values of one loss or metric over the epochs, and which changes are notable."""

from __future__ import annotations

import dataclasses
import math

# Smallest notable change of a value from 0 to 1 for which a larger value is better, and
# the same if the number of examples is known.
PROPORTION = 0.05
KNOWN_PROPORTION = 0.02
RELATIVE = 0.1  # smallest notable change of all other values, as a share of the value
OF_LARGEST = 0.02  # and as a share of the largest value of the curve


@dataclasses.dataclass(frozen=True)
class Curve:
    """The values of a loss or metric, one for each epoch.

    Args:
        name: Name in the logs, such as "val_accuracy".
        values: The values. None is not recorded, or not finite.
        epochs: The epoch of each value, numbered from 0.
        larger_is_better: The better direction.
        examples: Number of examples, if it is known. Defaults to None.
    """

    name: str
    values: tuple[float | None, ...]
    epochs: tuple[int, ...]
    larger_is_better: bool
    examples: int | None = None

    @property
    def said(self) -> str:
        """The name in a sentence, such as "validation accuracy"."""
        kind = "validation" if self.name.startswith("val_") else "training"
        return f"{kind} {self.name.removeprefix('val_')}"

    @property
    def is_proportion(self) -> bool:
        """Whether the values are from 0 to 1 and a larger value is better."""
        return self.larger_is_better and all(0 <= each <= 1 for each in self._known)

    @property
    def is_accuracy(self) -> bool:
        """Whether the values are shares of examples."""
        return self.is_proportion and "acc" in self.name

    @property
    def best(self) -> int | None:
        """Index of the best value, the first of equal ones, or None."""
        known = [i for i, each in enumerate(self.values) if each is not None]
        return min(known, key=lambda i: (self.gain(i, known[0]), i), default=None)

    def gain(self, before: int, after: int) -> float:
        """Return how much better the value at `after` is than the one at `before`.

        A value that is missing gives NaN, for which all comparisons are False.
        """
        first, last = self.values[before], self.values[after]
        if first is None or last is None:
            return math.nan
        return last - first if self.larger_is_better else first - last

    def tolerance(self, *indices: int) -> float:
        """Return the smallest notable change between values.

        - An accuracy with a known number of examples: 0.02, or twice the standard error
          of the difference of two proportions if this is larger.
        - Another value from 0 to 1 for which a larger value is better: 0.05.
        - All other values: 10% of the smaller value, or 2% of the largest value of the
          curve if this is larger.
        """
        values = [self.values[i] for i in indices if self.values[i] is not None]
        if self.is_accuracy and self.examples:
            variance = sum(p * (1 - p) for p in values) / self.examples
            return max(KNOWN_PROPORTION, 2 * math.sqrt(variance))
        if self.is_proportion:
            return PROPORTION
        largest = max(map(abs, self._known), default=0.0)
        return max(RELATIVE * min(map(abs, values), default=0.0), OF_LARGEST * largest)

    def is_worse(self, before: int, after: int) -> bool:
        """Return whether the value at `after` is notably worse than at `before`."""
        loss = self.gain(after, before)
        return loss > 0 and loss >= self.tolerance(before, after)

    def at(self, index: int) -> str:
        """Return a value and its epoch as text. Epochs are numbered from 1."""
        return f"{self.number(index)} (epoch {self.epochs[index] + 1})"

    def number(self, index: int) -> str:
        """Return a value as text."""
        return f"{self.values[index]:.4g}"

    @property
    def _known(self) -> list[float]:
        return [each for each in self.values if each is not None]
