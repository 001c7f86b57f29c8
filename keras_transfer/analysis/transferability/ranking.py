"""BackboneRanking: the scores of several backbones on one task, as table and plot."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np

from keras_transfer.analysis.report.plots import BLUE
from keras_transfer.analysis.report.plots import GRAY
from keras_transfer.analysis.report.plots import new_figure

TITLES = {
    "probe": "accuracy of a probe",
    "log_me": "LogME",
    "h_score": "H-score",
    "leep": "LEEP",
}


class BackboneRow(NamedTuple):
    """The scores of one backbone.

    Args:
        name: Name of the backbone.
        scores: Dict from the names of the scores to floats.
        probe_error: Standard error of the accuracy of the probe; None without a probe.
        seconds: Dict from "features" and the names of the scores to seconds of time.
        num_features: Number of features.
        parameters: Number of parameters of the backbone.
    """

    name: str
    scores: dict[str, float]
    probe_error: float | None
    seconds: dict[str, float]
    num_features: int
    parameters: int


class BackboneRanking:
    """The result of `kt.rank_backbones`, with the best backbone first.

    Print it for a table, or read its `rows`. `best` is the name of the first.

    Args:
        rows: List of `BackboneRow`, in any order. All have the same scores. The first
            of them decides the order.

    Raises:
        ValueError: If there are no rows.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        x, y = np.random.rand(40, 6), np.arange(40) % 2
        backbones = [
            keras.Sequential([keras.Input((6,)), keras.layers.Dense(size)], name=name)
            for name, size in (("small", 2), ("large", 8))
        ]
        ranking = kt.rank_backbones(backbones, (x, y), verbose=0)
        print(ranking)
        assert ranking.best in ("small", "large") and len(ranking.rows) == 2
        ```

    Reference:
        You, Liu, Wang and Long 2021, LogME: Practical Assessment of Pre-trained Models
        for Transfer Learning, arXiv:2102.11005.
    """

    def __init__(self, rows: Sequence[BackboneRow]) -> None:
        if not rows:
            raise ValueError("There are no rows. Pass at least one BackboneRow.")
        first = next(iter(rows[0].scores))
        self.rows = sorted(rows, key=lambda row: -row.scores[first])

    @property
    def best(self) -> str:
        """The name of the backbone with the largest first score."""
        return self.rows[0].name

    def plot(self, path: str | os.PathLike | None = None) -> Any:
        """Draw a dot for each backbone, in one panel for each score.

        Args:
            path: String or path of the file to write, such as "ranking.png". The
                suffix decides the format. Defaults to `None`, which writes no file.

        Returns:
            A `matplotlib.figure.Figure`, which pyplot does not manage.
        """
        names = [row.name for row in self.rows]
        kinds = list(self.rows[0].scores)
        size = (1.5 + 2.8 * len(kinds), 0.9 + 0.32 * len(names))
        figure = new_figure(*size)
        axes = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
        for ax, kind in zip(axes, kinds, strict=True):
            values = np.array([row.scores[kind] for row in self.rows])
            errors = None
            if kind == "probe":
                errors = [row.probe_error for row in self.rows]
            # Dots and not bars, because LogME and LEEP can be negative.
            ax.errorbar(values, names, xerr=errors, color=GRAY, fmt="none", capsize=3)
            colors = [BLUE if each == values.max() else GRAY for each in values]
            ax.scatter(values, names, color=colors, zorder=3)
            ax.grid(axis="y", color="0.9")
            ax.margins(x=0.15, y=0.15)
            ax.set_title(TITLES[kind], fontsize=10)
            ax.spines[["top", "right"]].set_visible(False)
        axes[0].invert_yaxis()
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def __str__(self) -> str:
        kinds = list(self.rows[0].scores)
        lines = [["backbone", *kinds, "features", "parameters", "seconds"]]
        for row in self.rows:
            values = [f"{row.scores[kind]:.3f}" for kind in kinds]
            if row.probe_error is not None:
                values[kinds.index("probe")] += f" ± {row.probe_error:.3f}"
            sizes = [f"{row.num_features:,}", f"{row.parameters:,}"]
            lines.append(
                [row.name, *values, *sizes, f"{sum(row.seconds.values()):.1f}"]
            )
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = [
            "  ".join(
                [name.ljust(widths[0])]
                + [cell.rjust(width) for cell, width in zip(cells, widths[1:])]
            ).rstrip()
            for name, *cells in lines
        ]
        return "\n".join([*shown, *self._notes()])

    def _notes(self) -> list[str]:
        """Return the sentence on backbones that the probe cannot tell from the best."""
        best = self.rows[0]
        if best.probe_error is None or len(self.rows) == 1:
            return []
        near = [
            row.name
            for row in self.rows[1:]
            if best.scores["probe"] - row.scores["probe"]
            <= 2 * np.hypot(best.probe_error, row.probe_error)
        ]
        if not near:
            return [f"{best.name} is clearly the best probe."]
        names = ", ".join(near)
        return [
            f"Not below {best.name} by two standard errors of the difference: {names}."
        ]
