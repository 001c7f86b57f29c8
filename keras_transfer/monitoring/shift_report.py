"""ShiftReport: whether a window has shifted, as text, Markdown, JSON and HTML."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from collections.abc import Sequence

from keras_transfer.analysis.report.saved_result import SavedResult
from keras_transfer.analysis.report.tables import clean
from keras_transfer.analysis.report.tables import Section
from keras_transfer.monitoring.shift_plots import curve_plot
from keras_transfer.monitoring.shift_plots import shares_plot

COLUMNS = 12  # most columns in the table of text, those with the smallest p-values
CLASSES = 30  # most classes in the table of shares


class ShiftReport(SavedResult):
    """Whether the examples of a window have shifted, as text, Markdown, JSON and HTML.

    `ShiftMonitor.report` returns it. `print(report)` shows three tables:

    - the tests: the statistic, the p-value (of the Kolmogorov-Smirnov tests: the
      smallest of all columns, times their number), and the threshold of this look;
    - the columns with the smallest p-values: class scores and features;
    - the share of each class in the reference, in the predictions of the window, and
      two estimates of its true share under label shift.

    Args:
        content: Dict that JSON can store, the content of the report.

    Example:
        ```python
        import keras_transfer as kt

        row = {"test": "class scores, Kolmogorov-Smirnov", "statistic": 0.4}
        row |= {"where": "most in 'cat'", "p_value": 0.001, "threshold": 0.01}
        curve = {"name": "cat", "reference": [0.0, 1.0], "window": [0.5, 1.0]}
        content = {"rows": 80, "look": 1, "alpha": 0.05, "level": 0.03, "notes": []}
        content |= {"tests": [row | {"shifted": True}], "columns": [], "shares": []}
        report = kt.monitoring.ShiftReport(content | {"curve": curve, "model": "pets"})
        print(report)
        assert report.shifted
        ```

    Reference:
        Rabanser, Günnemann and Lipton 2019, Failing Loudly: An Empirical Study of
        Methods for Detecting Dataset Shift, NeurIPS, arXiv:1810.11953.
    """

    kind = "shift report"

    @property
    def shifted(self) -> bool:
        """Whether a test found a shift at the level of this look."""
        return any(row["shifted"] for row in self._content["tests"])

    @property
    def table(self) -> list[dict]:
        """A dict for each test: its name, statistic, p-value, threshold and verdict."""
        return copy.deepcopy(self._content["tests"])

    @property
    def class_shares(self) -> list[dict]:
        """A dict for each class: its shares in the reference and in the window.

        `predicted` is the share of the predictions, `bbse` and `em` are the shares by
        Lipton et al. 2018 and by Saerens et al. 2002.
        """
        return copy.deepcopy(self._content["shares"])

    def __repr__(self) -> str:
        said = "shift" if self.shifted else "no shift"
        return f"<ShiftReport, {said}. Use print() to show it>"

    def _images(self) -> Mapping[str, tuple[str, str]]:
        content = self._content
        images = {"columns": curve_plot(content["curve"])}
        if content["shares"]:
            images["shares"] = shares_plot(content["shares"][:CLASSES])
        return images

    def _sections(self) -> Sequence[Section]:
        """Return the sections that all text formats share."""
        content = self._content
        found = [_tests(content, self.shifted)]
        if content["columns"]:
            found.append(_columns(content["columns"]))
        if content["shares"]:
            found.append(_shares(content["shares"]))
        return found


def _tests(content: dict, shifted: bool) -> Section:
    rows = tuple(
        (
            row["test"],
            f"{row['statistic']:.4f}",
            _shown(row["p_value"]),
            _shown(row["threshold"]),
            "shift" if row["shifted"] else "",
            clean(row["where"]),
        )
        for row in content["tests"]
    )
    notes = (
        f"{content['rows']:,} examples of {clean(content['model'])!r}, look "
        f"{content['look']}. The level of this look is {_shown(content['level'])}; all "
        f"looks together keep {content['alpha']:g}.",
        *map(clean, content["notes"]),
    )
    header = ("test", "statistic", "p", "threshold", "", "")
    verdict = "shift" if shifted else "no shift found"
    return Section("tests", f"Shift: {verdict}", notes, header, rows, left=(0, 4, 5))


def _columns(columns: list[dict]) -> Section:
    first = sorted(columns, key=lambda row: row["p_value"])[:COLUMNS]
    rows = tuple(
        (
            row["kind"],
            clean(row["name"]),
            f"{row['reference_mean']:.4f}",
            f"{row['mean']:.4f}",
            f"{row['statistic']:.4f}",
            _shown(row["p_value"]),
        )
        for row in first
    )
    note = f"{len(first)} of {len(columns)} columns; p before Bonferroni's correction."
    header = ("kind", "column", "reference", "window", "statistic", "p")
    return Section("columns", "What differs most", (note,), header, rows, left=(0, 1))


def _shares(shares: list[dict]) -> Section:
    keys = ("reference", "predicted", "bbse", "em")
    moved = sorted(shares, key=lambda row: -abs(row["em"] - row["reference"]))
    kept = {id(row) for row in moved[:CLASSES]}
    rows = tuple(
        (
            clean(row["class"]),
            *("" if row[key] is None else f"{row[key]:.4f}" for key in keys),
        )
        for row in shares
        if id(row) in kept
    )
    note = (
        "bbse corrects the predictions by the confusion matrix of the reference, em by "
        "expectation maximization on the scores. Both assume label shift: other class "
        "shares, but the same examples within a class."
    )
    if len(rows) < len(shares):
        note += f" The {len(rows)} classes of {len(shares)} that differ most."
    header = ("class", *keys)
    return Section("shares", "Class shares", (note,), header, rows)


def _shown(value: float) -> str:
    return f"{value:.4f}" if value >= 0.001 else f"{value:.1e}"
