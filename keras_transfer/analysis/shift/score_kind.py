"""ScoreKind: how the outputs of a classifier become scores from 0 to 1."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

KINDS = ("classes", "binary", "labels")
TINY = 1e-30  # smaller scores count as equal
SUM = 0.02  # largest distance from 1 of a sum of float16 probabilities


@dataclasses.dataclass(frozen=True)
class ScoreKind:
    """How the outputs of a classifier become scores from 0 to 1.

    Args:
        kind: "classes" for one of several classes, "binary" for one output that scores
            the second of two classes, "labels" for independent labels.
        logits: Whether the outputs are logits.
        size: Number of outputs of an example.
    """

    kind: str
    logits: bool
    size: int

    @classmethod
    def from_config(cls, config: Mapping) -> ScoreKind:
        """Return the kind that `dataclasses.asdict` wrote.

        Raises:
            ValueError: If a value is not possible.
        """
        made = cls(**config)
        least = 1 if made.kind in ("binary", "labels") else 2
        sizes = isinstance(made.size, int) and made.size >= least
        if made.kind not in KINDS or not isinstance(made.logits, bool) or not sizes:
            raise ValueError(f"{dict(config)!r} is not a kind of scores.")
        return made

    def scores(self, outputs: object) -> np.ndarray:
        """Return outputs as scores in float64, `(count, size)`.

        Raises:
            ValueError: If the outputs are not finite numbers of the right shape, or
                are not probabilities.
        """
        array = rows_of("outputs", outputs, self.size, narrow=self.size == 1)
        if self.logits and self.kind == "classes":
            powers = np.exp(array - array.max(1, keepdims=True))
            return powers / powers.sum(1, keepdims=True)
        if self.logits:
            return np.exp(-np.logaddexp(0, -array))
        wrong = ((array < -1e-6) | (array > 1 + 1e-6)).any(1)
        what = "values outside of 0 to 1"
        if self.kind == "classes" and not wrong.any():
            wrong = np.abs(array.sum(1) - 1) > SUM
            what = f"the sum {array.sum(1)[wrong.argmax()]:.4g}"
        if wrong.any():
            raise ValueError(
                f"Row {wrong.argmax()} of the outputs has {what}, but the outputs of "
                "the model in the reference are probabilities"
                f"{' of classes, with the sum 1' * (self.kind == 'classes')}. "
                f"{wrong.sum()} of {len(array)} rows are like this. Pass the outputs "
                "as the server returns them, not logits."
            )
        return np.clip(array, 0, 1)

    def predicted(self, scores: np.ndarray) -> np.ndarray | None:
        """Return the predicted class of each row, or None for independent labels."""
        if self.kind == "labels":
            return None
        return (scores[:, 0] > 0.5).astype(int) if self.size == 1 else scores.argmax(1)

    def shares(self, scores: np.ndarray) -> np.ndarray:
        """Return scores with a column for each class, or for each label."""
        if self.kind == "binary":
            return np.concatenate([1 - scores, scores], axis=1)
        return scores

    def shown(self, scores: np.ndarray) -> np.ndarray:
        """Return the scores of the classes that are tested."""
        return scores[:, [0] if self.kind == "binary" else self.tested_classes()]

    def compared(self, scores: np.ndarray) -> np.ndarray:
        """Return the columns to test, in the order of `shown`.

        For classes these are log odds, where the scores of the other classes are added
        up. They have the order of the scores, so a test of ranks gives the same. But a
        score near 1 is rounded to 1 or to the number below it, and this rounding can
        differ between two machines.
        """
        if self.kind != "classes":
            return self.shown(scores)
        scores = scores.astype("float64")
        others = scores @ (1 - np.eye(self.size))
        odds = np.log(np.maximum(scores, TINY)) - np.log(np.maximum(others, TINY))
        return self.shown(odds)

    def tested_classes(self) -> list[int]:
        """Return the class of each column to test."""
        two = self.kind == "binary" or (self.kind == "classes" and self.size == 2)
        return [1] if two else list(range(self.size))


def rows_of(
    name: str, values: object, size: int, *, narrow: bool = False
) -> np.ndarray:
    """Return finite numbers in float64, with `size` columns and at least one row.

    Args:
        name: Name of the argument, for the error.
        values: An array.
        size: Number of columns.
        narrow: Whether a single column can be without its axis.

    Raises:
        ValueError: If the values are something else.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biufV":  # bfloat16 is of kind "V"
        raise ValueError(
            f"`{name}` has the dtype {array.dtype}. Pass an array of numbers."
        )
    array = array.astype("float64")
    if narrow and array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] != size:
        raise ValueError(
            f"`{name}` has the shape {array.shape}, but the model of the reference "
            f"has the shape (count, {size}). Pass a row of {size} numbers for each "
            "example, from the same model."
        )
    if not len(array):
        raise ValueError(f"`{name}` has no rows. Pass at least one example.")
    wrong = ~np.isfinite(array).all(1)
    if wrong.any():
        raise ValueError(
            f"Row {wrong.argmax()} of `{name}` has NaN or infinite values, and "
            f"{wrong.sum()} of {len(array)} rows have some. Find out why the model "
            "returned them; they cannot be compared."
        )
    return array
