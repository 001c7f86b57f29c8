"""Plots of a shift report: the most shifted column, and the class shares."""

from __future__ import annotations

import numpy as np

from keras_transfer.analysis.report.plots import BLUE
from keras_transfer.analysis.report.plots import GRAY
from keras_transfer.analysis.report.plots import new_figure
from keras_transfer.analysis.report.plots import ORANGE
from keras_transfer.analysis.report.plots import styled
from keras_transfer.analysis.report.plots import to_svg
from keras_transfer.analysis.report.tables import clean

LONGEST = 20  # largest number of characters in a label


def curve_plot(curve: dict) -> tuple[str, str]:
    """Return an SVG of the distributions of the most shifted column, and its words.

    Args:
        curve: Dict with the name of the column and its quantiles in the reference and
            in the window.
    """
    name = _short(curve["name"])
    with styled():
        figure = new_figure(5.6, 3.2)
        ax = figure.subplots()
        drawn = (("reference", BLUE, "-"), ("window", ORANGE, "--"))
        for key, color, line in drawn:
            values = curve[key]
            shares = np.linspace(0, 1, len(values))
            ax.step(values, shares, color=color, linestyle=line, label=key)
        ax.set_xlabel(f"score of {name}")
        ax.set_ylabel("share of examples below")
        ax.legend(frameon=False)
        svg = to_svg(figure)
    return svg, f"Distribution of the score of {name} in the reference and the window"


def shares_plot(shares: list[dict]) -> tuple[str, str]:
    """Return an SVG of the class shares, and its words.

    Args:
        shares: The dicts of `ShiftReport.class_shares`.
    """
    drawn = (
        ("reference", "reference", GRAY),
        ("predicted", "predicted in the window", BLUE),
        ("em", "corrected (EM)", ORANGE),
    )
    with styled():
        figure = new_figure(6.4, 1.4 + 0.34 * len(shares))
        ax = figure.subplots()
        places = np.arange(len(shares))
        for number, (key, label, color) in enumerate(drawn):
            values = [row[key] for row in shares]
            at = places + (number - 1) * 0.27
            ax.barh(at, values, height=0.25, color=color, label=label)
        ax.set_yticks(places, [_short(row["class"]) for row in shares])
        ax.set_ylim(len(shares) - 0.4, -0.6)
        ax.set_xlabel("share of examples")
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
        svg = to_svg(figure)
    return svg, "Shares of the classes in the reference and in the window"


def _short(text: str) -> str:
    text = clean(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
