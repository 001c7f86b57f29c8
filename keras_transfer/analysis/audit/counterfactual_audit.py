"""CounterfactualAudit: the result of `counterfactual`, in all formats and as a plot."""

from __future__ import annotations

import os
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_transfer.analysis.audit.fairness_sections import class_name
from keras_transfer.analysis.audit.fairness_sections import ranged
from keras_transfer.analysis.report.plots import BLUE
from keras_transfer.analysis.report.plots import GRAY
from keras_transfer.analysis.report.plots import new_figure
from keras_transfer.analysis.report.plots import ORANGE
from keras_transfer.analysis.report.plots import styled
from keras_transfer.analysis.report.plots import to_svg
from keras_transfer.analysis.report.saved_result import SavedResult
from keras_transfer.analysis.report.tables import clean
from keras_transfer.analysis.report.tables import Section

ENDS = 5  # number of values at each end of the list by slot
LEAST = 0.001  # smaller p-values are shown as "< 0.001"


class CounterfactualAudit(SavedResult):
    """The result of `kt.analysis.counterfactual`, as text, JSON, HTML and a plot.

    `print(audit)` shows the tables, and a notebook shows them with the plot.

    Args:
        content: Dict that JSON can store, the content of the audit.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        pairs = [("He is here.", "She is here."), ("He left.", "She left.")]
        model = lambda texts: np.array([float(len(text)) for text in texts])
        audit = kt.analysis.counterfactual(model, pairs)
        assert audit.shifts == [1.0] and audit.flips is None
        ```

    Reference:
        Kiritchenko and Mohammad 2018, Examining Gender and Race Bias in Two Hundred
        Sentiment Analysis Systems, arXiv:1805.04508.
    """

    kind = "counterfactual audit"

    @property
    def flips(self) -> list[int] | None:
        """The number of flips of each comparison; None if the scores are numbers."""
        found = [each["flips"] for each in self._content["comparisons"]]
        return None if None in found else [each["count"] for each in found]

    @property
    def shifts(self) -> list[float]:
        """The mean shift of each comparison, of the first class."""
        rows = self._content["comparisons"]
        return [each["scores"][0]["shift"][0] for each in rows]

    def plot(self, path: str | os.PathLike | None = None) -> Any:
        """Draw the shift of each pair, and the mean of each comparison.

        Args:
            path: String or path of the file to write, such as "shifts.png". The suffix
                decides the format. Defaults to `None`, which writes no file.

        Returns:
            A `matplotlib.figure.Figure`, which pyplot does not manage.
        """
        rows, random = self._content["comparisons"], np.random.default_rng(0)
        with styled():
            figure = new_figure(6.4, 1.1 + 0.6 * len(rows))
            ax = figure.subplots()
            ax.axvline(0, color=GRAY, linewidth=1)
            for place, each in enumerate(rows):
                shifts = each["scores"][0]["shifts"]
                heights = place + random.uniform(-0.25, 0.25, len(shifts))
                style = {"color": BLUE, "alpha": 0.35, "ms": 3.5}
                ax.plot(shifts, heights, "o", label="a pair", **style)
                mean, low, high = each["scores"][0]["shift"]
                ends = [[0], [0]] if low is None else [[mean - low], [high - mean]]
                style = {"color": ORANGE, "fmt": "D", "capsize": 3, "label": "mean"}
                ax.errorbar([mean], [place], xerr=ends, **style)
            names = [" → ".join(map(clean, each["names"])) for each in rows]
            ax.set_yticks(range(len(rows)), names)
            ax.set_ylim(len(rows) - 0.5, -0.5)
            ax.set_xlabel(f"shift of {self._score(rows[0]['scores'][0])}")
            handles, labels = ax.get_legend_handles_labels()
            shown = dict(zip(labels, handles, strict=True))
            place = {"loc": "outside upper right", "ncols": 2, "frameon": False}
            figure.legend(shown.values(), shown, **place)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def __repr__(self) -> str:
        names = [" → ".join(each["names"]) for each in self._content["comparisons"]]
        return f"<CounterfactualAudit of {names}. Use print() to show it>"

    def _images(self) -> Mapping[str, tuple[str, str]]:
        return {"shifts": (to_svg(self.plot()), "The shift of each pair")}

    def _sections(self) -> Sequence[Section]:
        content = self._content
        notes = [
            f"{content['texts']:,} texts. The outputs are read as "
            f"{content['read_as']}. Intervals: {100 * content['level']:.0f} %.",
            "All tests take pairs as independent. The audit measures. It does not "
            "decide which change is harmful. Texts that were not passed are not seen.",
        ]
        found = [Section("title", self._title(), tuple(notes))]
        found.append(self._shifts())
        if content["classes"]:
            found.append(self._flips())
        for each in content["comparisons"]:
            found += [*self._by_slot(each), self._largest(each)]
        return found

    def _title(self) -> str:
        return f"Changes of words for {clean(self._content['model'])}"

    def _score(self, row: dict) -> str:
        if row["class"] is None:
            return "the output"
        return f"p({class_name(self._content, row['class'])})"

    def _shifts(self) -> Section:
        rows = []
        for each in self._content["comparisons"]:
            for row in each["scores"]:
                cells = [_named(each), f"{each['pairs']:,}", self._score(row)]
                cells += [f"{row['first']:.3f}", f"{row['second']:.3f}"]
                cells += [ranged(row["shift"], "+.4f"), f"{row['larger']:,}"]
                cells += [f"{row['smaller']:,}", _p(row["t_test"])]
                rows.append((*cells, _p(row["wilcoxon"])))
        header = ("change", "pairs", "score", "first", "second", "mean shift")
        header += ("up", "down", "p (t-test)", "p (Wilcoxon)")
        return Section("shifts", "Shifts", (), header, tuple(rows), (0, 2))

    def _flips(self) -> Section:
        rows = []
        for each in self._content["comparisons"]:
            flips = each["flips"]
            for row in each["scores"]:
                toward = row["toward"]
                cells = [_named(each), f"{flips['count']:,} of {each['pairs']:,}"]
                cells += [ranged(flips["share"]), self._score(row)[2:-1]]
                cells += [f"{toward['only_first']:,}", f"{toward['only_second']:,}"]
                rows.append((*cells, _p(toward["mcnemar"])))
        header = ("change", "flips", "share", "class", "only first", "only second")
        header += ("p (McNemar)",)
        notes = (
            "Only first: pairs of which only the first text is predicted to have the "
            "class.",
        )
        return Section("flips", "Flips", notes, header, tuple(rows), (0, 3))

    def _by_slot(self, comparison: dict) -> list[Section]:
        found = []
        for each in comparison["by_slot"]:
            values = each["values"]
            shown, notes = values, ()
            if len(values) > 2 * ENDS:
                shown = [*values[:ENDS], *values[-ENDS:]]
                notes = (f"The {ENDS} lowest and the {ENDS} highest of {len(values)}.",)
            rows = tuple(
                (clean(row["value"]), f"{row['pairs']:,}", f"{row['shift']:+.4f}")
                for row in shown
            )
            slot = clean(each["slot"])
            title = f"Mean shift by {slot}, {_named(comparison)}"
            header = (slot, "pairs", "mean shift")
            found.append(Section("slot", title, notes, header, rows))
        return found

    def _largest(self, comparison: dict) -> Section:
        title = f"Largest shifts, {_named(comparison)}"
        if not comparison["largest"]:
            return Section("largest", title, ("No score changes.",))
        rows = tuple(
            (
                self._score(row),
                *(f"{score:.3f}" for score in row["scores"]),
                *map(clean, row["texts"]),
            )
            for row in comparison["largest"]
        )
        header = ("score", "first", "second", "first text", "second text")
        return Section("largest", title, (), header, rows, (0, 3, 4))


def _named(comparison: dict) -> str:
    return " → ".join(map(clean, comparison["names"]))


def _p(value: float | None) -> str:
    if value is None:
        return "not defined"
    return f"< {LEAST}" if value < LEAST else f"{value:.3f}"
