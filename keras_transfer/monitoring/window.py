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
        self.scores: np.ndarray | None = None
        self.features: np.ndarray | None = None
        self._keys = np.empty(0)

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
        if self.seen and (features is None) != (self.features is None):
            with_, without = "without", "with"
            if features is not None:
                with_, without = without, with_
            raise ValueError(
                f"This update is {with_} features, but the others since the last "
                f"report are {without} features. Pass features in each update or in "
                "none, or call report() first."
            )
        keys = self._rng.random(len(scores))
        if not self.seen:
            self.scores, self.features, self.counts = scores, features, counts
            self._keys = keys
        else:
            self.scores = np.concatenate([self.scores, scores])
            if features is not None:
                self.features = np.concatenate([self.features, features])
            if counts is not None:
                self.counts = self.counts + counts
            self._keys = np.concatenate([self._keys, keys])
        self.seen += len(scores)
        if len(self._keys) > ROWS:
            kept = np.sort(np.argpartition(self._keys, ROWS)[:ROWS])
            self.scores, self._keys = self.scores[kept], self._keys[kept]
            if self.features is not None:
                self.features = self.features[kept]
