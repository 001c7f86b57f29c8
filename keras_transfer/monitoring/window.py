"""Window: the scores and features since the last report, up to a number of rows."""

from __future__ import annotations

import numpy as np

ROWS = 10_000  # most rows that are kept


class Window:
    """The scores and features since the last report.

    All rows count in the shares of the predicted classes. Of more than 10,000 rows, a
    random part is kept: each row gets a random number, and the rows with the smallest
    numbers stay.

    Args:
        rng: Generator of the part that is kept.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.clear()

    def clear(self) -> None:
        """Remove all rows."""
        self.seen = 0
        self.counts: np.ndarray | None = None
        self._has_features = False
        # Each part has the random numbers of its rows, their scores and features.
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._kept = 0

    @property
    def scores(self) -> np.ndarray:
        """The scores that are kept, `(count, size)`."""
        return self._joined()[1]

    @property
    def features(self) -> np.ndarray | None:
        """The reduced features that are kept, `(count, size)`, or None."""
        return self._joined()[2] if self._has_features else None

    def add(
        self,
        scores: np.ndarray,
        features: np.ndarray | None,
        counts: np.ndarray | None,
    ) -> None:
        """Add rows.

        Args:
            scores: Scores, `(count, size)`.
            features: Reduced features of the same examples, or None.
            counts: The number of predictions of each class, or None.

        Raises:
            ValueError: If the other rows of the window have features and these have
                none, or the other way around.
        """
        has_features = features is not None
        if self.seen and has_features != self._has_features:
            these, others = ("with", "without") if has_features else ("without", "with")
            raise ValueError(
                f"This update is {these} features, but the others since the last "
                f"report are {others} features. Pass features in each update or in "
                "none, or call report() first."
            )
        self._has_features = has_features
        if counts is not None:
            self.counts = counts if self.counts is None else self.counts + counts
        part = self._rng.random(len(scores)), scores
        self._parts.append((*part, features) if has_features else part)
        self.seen += len(scores)
        self._kept += len(scores)
        if self._kept > 2 * ROWS:
            self._joined()

    def _joined(self) -> tuple[np.ndarray, ...]:
        """Join the parts, remove the rows that do not stay, and return the arrays."""
        joined = tuple(np.concatenate(each) for each in zip(*self._parts, strict=True))
        if len(joined[0]) > ROWS:
            kept = np.sort(np.argpartition(joined[0], ROWS)[:ROWS])
            joined = tuple(each[kept] for each in joined)
        self._parts, self._kept = [joined], len(joined[0])
        return joined
