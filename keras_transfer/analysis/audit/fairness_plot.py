"""The plot of an audit by group: each measure of each group, with its interval."""

from __future__ import annotations

from typing import Any

from keras_transfer.analysis.audit.fairness_measures import HEADINGS
from keras_transfer.analysis.audit.fairness_sections import class_name
from keras_transfer.analysis.audit.fairness_sections import of_class
from keras_transfer.analysis.audit.fairness_sections import shown_group
from keras_transfer.analysis.report.plots import BLUE
from keras_transfer.analysis.report.plots import GRAY
from keras_transfer.analysis.report.plots import new_figure
from keras_transfer.analysis.report.plots import ORANGE

LONGEST = 32  # largest number of characters in the name of a group
STYLES = {"model": (BLUE, "o", -0.13), "baseline": (ORANGE, "s", 0.13)}
LABELS = ("label_rate", "mean_label")


def draw(content: dict, attribute: dict, positive: int | None) -> Any:
    """Return a figure with a panel for each measure and a row for each group.

    Args:
        content: The content of the audit.
        attribute: One of `content["attributes"]`.
        positive: The class, or None for numbers.
    """
    measures = [
        each
        for each in of_class(attribute, positive)
        if each["measure"] not in (*LABELS, "precision")
    ]
    labels = next(
        each for each in of_class(attribute, positive) if each["measure"] in LABELS
    )
    groups = attribute["groups"]
    figure = new_figure(2.3 * len(measures) + 1.6, 1.35 + 0.42 * len(groups))
    axes = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for ax, each in zip(axes, measures, strict=True):
        if each["measure"] in ("positive_rate", "mean_prediction"):
            _mark_labels(ax, labels["model"]["values"])
        for kind, (color, marker, shift) in STYLES.items():
            if each[kind] is not None:
                _mark(ax, each[kind]["values"], kind, color, marker, shift)
        ax.set_title(_heading(content, each))
        ax.grid(axis="x", color="#e4e7ec", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.locator_params(axis="x", nbins=4)
        ax.margins(x=0.12)
    names = [_short(shown_group(group)) for group in groups]
    axes[0].set_yticks(range(len(groups)), names)
    axes[0].set_ylim(len(groups) - 0.5, -0.5)
    handles, words = axes[0].get_legend_handles_labels()
    for ax in axes[1:]:
        for handle, word in zip(*ax.get_legend_handles_labels(), strict=True):
            if word not in words:
                handles.append(handle)
                words.append(word)
    figure.legend(handles, words, loc="outside upper right", ncols=3, frameon=False)
    return figure


def _mark(
    ax: Any, values: list, kind: str, color: str, marker: str, shift: float
) -> None:
    places = [place for place, value in enumerate(values) if value[0] is not None]
    found = [values[place] for place in places]
    ends = [
        [value - (value if low is None else low) for value, low, _ in found],
        [(value if high is None else high) - value for value, _, high in found],
    ]
    # A percentile interval need not contain the value itself.
    ends = [[max(each, 0.0) for each in side] for side in ends]
    heights = [place + shift for place in places]
    values = [value for value, _, _ in found]
    style = {"color": color, "fmt": marker, "ms": 4.5, "capsize": 2.5, "lw": 1.2}
    ax.errorbar(values, heights, xerr=ends, label=kind, **style)


def _mark_labels(ax: Any, values: list) -> None:
    places = [place for place, value in enumerate(values) if value[0] is not None]
    found = [values[place][0] for place in places]
    style = {"color": GRAY, "marker": "|", "ms": 13, "mew": 1.6, "ls": ""}
    ax.plot(found, places, label="labels", **style)


def _heading(content: dict, measure: dict) -> str:
    heading = HEADINGS[measure["measure"]]
    if measure["measure"] == "positive_rate":
        heading = f"predicted as {class_name(content, measure['class'])}"
    return _short(heading)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
