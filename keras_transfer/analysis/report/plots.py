"""The SVG plots of a report: learning curves, moved norms and confusion matrix."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_transfer.analysis.report.costs import is_setting
from keras_transfer.analysis.report.tables import clean
from keras_transfer.analysis.report.tables import MISSING
from keras_transfer.analysis.report.tables import moved

BLUE, ORANGE, GRAY = "#3566a8", "#d9762b", "#8a8f98"
LONGEST = 28  # largest number of characters in a label
ANNOTATED = 20  # largest number of classes for which the matrix shows counts
SPREAD = 30  # for a larger ratio between moved norms the axis is logarithmic


def plots(content: dict) -> dict[str | tuple[str, str], str]:
    """Return a dict from the names of plots to SVG, without plots that have no data.

    For several outputs, the key of a confusion matrix is `("confusion", output)`.
    """
    images = {}
    evaluation = content["evaluation"] or {}
    matrices = {"confusion": evaluation}
    if "by_output" in evaluation:
        matrices = {
            ("confusion", name): each or {}
            for name, each in evaluation["by_output"].items()
        }
    with styled():
        for name, draw, what in (
            ("curves", _curves, content),
            ("moved", _moved, content),
            *((name, _confusion, each) for name, each in matrices.items()),
        ):
            figure = draw(what)
            if figure is not None:
                images[name] = to_svg(figure)
    return images


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Use one style instead of the user's style, and draw `$` as plain text."""
    import matplotlib
    from matplotlib import style

    settings = {
        "font.size": 9,
        "text.parse_math": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "svg.hashsalt": "report",
        "svg.fonttype": "none",  # keep text, because the viewer may have more glyphs
        "axes.formatter.useoffset": False,
    }
    with warnings.catch_warnings(), style.context("default"):
        # A missing glyph only affects the layout, because the text stays text.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        with matplotlib.rc_context(settings):
            yield


def new_figure(width: float, height: float) -> Any:
    """Return a figure in inches, which pyplot does not manage."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def to_svg(figure: Any) -> str:
    """Return a figure as SVG."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _curves(content: dict) -> Any:
    """Draw each loss and metric with its validation curve, and mark the phases."""
    curves = {k: v for k, v in (content["curves"] or {}).items() if not is_setting(k)}
    names = list(dict.fromkeys(name.removeprefix("val_") for name in curves))
    if not names:
        return None
    from matplotlib.ticker import MaxNLocator

    # Keras prints epochs from 1.
    epochs, phases = [each + 1 for each in content["epochs"]], content["phases"]
    columns = min(2, len(names))
    rows = math.ceil(len(names) / columns)
    figure = new_figure(4.4 * columns, 0.3 + 2.7 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(names) :]:
        ax.remove()
    for ax, name in zip(axes, names):
        drawn = (
            (name, "training", BLUE, "o"),
            (f"val_{name}", "validation", ORANGE, "s"),
        )
        for key, label, color, marker in drawn:
            if key in curves:
                values = np.array(curves[key], "float64")  # None becomes NaN
                ax.plot(epochs, values, marker=marker, ms=3.5, color=color, label=label)
        _mark_phases(ax, phases)
        ax.set_title(_short(name), pad=16)
        ax.set_xlabel("epoch")
        ax.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    handles = {
        label: line
        for ax in figure.axes
        for line, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles, loc="outside upper right", ncols=2, frameon=False
    )
    return figure


def _mark_phases(ax: Any, phases: list[dict]) -> None:
    if len(phases) < 2:
        return
    room = len(phases) <= 8
    for number, phase in enumerate(phases):
        first, last = phase["first_epoch"] + 1, phase["last_epoch"] + 1
        if number:
            ax.axvline(first - 0.5, color=GRAY, linestyle=":", linewidth=1)
        if number % 2:
            ax.axvspan(first - 0.5, last + 0.5, color=GRAY, alpha=0.12, linewidth=0)
        if room:
            ax.annotate(
                _short(f"phase {phase['phase']}" if not number else phase["phase"]),
                ((first + last) / 2, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=7,
                color=GRAY,
            )


def _moved(content: dict) -> Any:
    """Draw how far each group moved, with the stem at the top."""
    rows = content["groups"]
    norms = [row["moved"] for row in rows]
    positive = [norm for norm in norms if norm]
    if not any(norm is not None for norm in norms):
        return None
    figure = new_figure(7.6, 0.9 + 0.25 * len(rows))
    ax = figure.subplots()
    bars = [norm or 0 for norm in norms]
    colors = [BLUE if row["moved_is_relative"] else ORANGE for row in rows]
    ax.barh(range(len(rows)), bars, color=colors, height=0.72)
    lowest = 0.0
    if positive and max(positive) > SPREAD * min(positive):
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")  # the default needs math text
        lowest = min(positive) / 3
        ax.set_xlim(lowest, max(positive) * 3)
    else:
        ax.set_xlim(0, max(positive, default=1) * 1.18)
    for i, row in enumerate(rows):
        ax.annotate(
            "0" if row["moved"] == 0 else moved(row),
            (max(bars[i], lowest), i),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=GRAY if row["moved"] is None else "black",
        )
    ax.set_yticks(range(len(rows)), [_short(row["name"]) for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel("moved: ||w - w0|| / ||w0||")
    return figure


def _confusion(evaluation: dict) -> Any:
    """Draw the confusion matrix, with each row as shares of its true class."""
    counts = evaluation.get("confusion_matrix")
    if counts is None:
        return None
    counts = np.array(counts)
    size = len(counts)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(1.6 + 0.42 * size, 11)
    figure = new_figure(side + 1.2, side)
    ax = figure.subplots()
    ax.spines[:].set_visible(False)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=ax, label="share of the true class", shrink=0.8)
    names = [_short(each["name"], 16) for each in evaluation["classes"]]
    small = 8 if size <= ANNOTATED else 6
    upright = max(map(len, names)) > 3
    ax.set_xticks(range(size), names, fontsize=small, rotation=90 if upright else 0)
    ax.set_yticks(range(size), names, fontsize=small)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    if size <= ANNOTATED:
        for i, j in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[i, j] > 0.55 else "black"
            text = f"{counts[i, j]}"
            font = 8 if len(text) < 4 else 6
            ax.text(j, i, text, ha="center", va="center", fontsize=font, color=color)
    return figure


def _short(text: Any, width: int = LONGEST) -> str:
    """Return a label that is cut to `width` characters."""
    text = clean(MISSING if text is None else text)
    return text if len(text) <= width else text[: width - 1] + "…"
