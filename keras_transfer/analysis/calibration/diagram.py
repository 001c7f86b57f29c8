"""Draw reliability diagrams: accuracy against confidence, and how many examples."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_transfer.analysis.report.plots import BLUE
from keras_transfer.analysis.report.plots import GRAY
from keras_transfer.analysis.report.plots import new_figure
from keras_transfer.analysis.report.plots import ORANGE
from keras_transfer.analysis.report.plots import styled
from keras_transfer.analysis.report.tables import clean


def diagrams(titled: Mapping[str, dict]) -> Any:
    """Return a figure with a reliability diagram for each title.

    Args:
        titled: Dict from titles to the contents of calibration errors.
    """
    with styled():
        figure = new_figure(3.4 * len(titled), 4.4)
        axes = figure.subplots(
            2, len(titled), squeeze=False, sharex=True, height_ratios=(3, 1)
        )
        for column, (title, content) in enumerate(titled.items()):
            _reliability(axes[0, column], title, content)
            _counts(axes[1, column], content["bins"], content["examples"])
        axes[0, 0].set_ylabel("accuracy")
        axes[1, 0].set_ylabel("share")
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(
            handles, names, loc="outside lower center", ncols=2, frameon=False
        )
    return figure


def _reliability(ax: Any, title: str, content: dict) -> None:
    rows = [row for row in content["bins"] if row["examples"]]
    middles, width = _middles(rows)
    accuracies = np.array([row["accuracy"] for row in rows])
    confidences = np.array([row["confidence"] for row in rows])
    ax.bar(middles, accuracies, width, color=BLUE, alpha=0.85, label="accuracy")
    # From the accuracy to the confidence: the error of each bin.
    ax.bar(
        middles,
        confidences - accuracies,
        width,
        bottom=accuracies,
        facecolor="none",
        edgecolor=ORANGE,
        hatch="////",
        linewidth=0.8,
        label="gap to confidence",
    )
    ax.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_title(f"{clean(title)}: ECE {content['ece']:.4f}")


def _counts(ax: Any, rows: Sequence[dict], examples: int) -> None:
    middles, width = _middles(rows)
    shares = [row["examples"] / examples for row in rows]
    ax.bar(middles, shares, width, color=GRAY)
    ax.set_ylim(0, 1)
    ax.set_xlabel("confidence")


def _middles(rows: Sequence[dict]) -> tuple[np.ndarray, float]:
    middles = np.array([(row["low"] + row["high"]) / 2 for row in rows])
    return middles, rows[0]["high"] - rows[0]["low"]
