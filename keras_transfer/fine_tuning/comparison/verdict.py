"""Verdict: the result of a comparison, as table, plot, HTML, Markdown and JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_transfer.analysis.report.plots import BLUE
from keras_transfer.analysis.report.plots import GRAY
from keras_transfer.analysis.report.plots import new_figure
from keras_transfer.analysis.report.plots import styled
from keras_transfer.analysis.report.plots import to_svg
from keras_transfer.analysis.report.repeated import deviation
from keras_transfer.analysis.report.repeated import mean_and_deviation
from keras_transfer.analysis.report.saved_result import SavedResult
from keras_transfer.analysis.report.section import Section
from keras_transfer.fine_tuning.comparison.differences import difference
from keras_transfer.fine_tuning.comparison.negative_transfer import negative_transfer
from keras_transfer.fine_tuning.comparison.negative_transfer import SCRATCH
from keras_transfer.fine_tuning.comparison.negative_transfer import ZERO_SHOT
from keras_transfer.fine_tuning.comparison.results import Result

# What trains, for readers of a plot who do not know the names.
MEANINGS = {
    SCRATCH: "no pretraining",
    "probe": "only the head",
    "lora": "LoRA and head",
    "lp-ft": "head, then all",
    "gradual": "from the head down",
    "full": "all at once",
    "auto": "chosen by a pilot",
    ZERO_SHOT: "no training",
}
# The columns of costs, and their formats. Those that no row has are left out.
COSTS = {"seconds": ".1f", "CPU seconds": ".1f", "kWh": ".3g"}
INTERVAL = "95 % intervals in parentheses, over seeds and test examples"


class Verdict(SavedResult):
    """The result of `kt.compare`, as text, Markdown, JSON, HTML and a plot.

    `print(verdict)` shows the table, and a notebook shows it with the plot.

    Args:
        content: Dict that JSON can store, the content of the verdict.

    Example:
        ```python
        import keras_transfer as kt

        row = {"strategy": "full", "values": [0.8, 0.9], "seconds": [1.0, 1.2]}
        row |= {"parameters": 10, "chosen": ["full", "full"], "gains": {}}
        content = {"metric": "accuracy", "larger": True, "rows": [row], "notes": []}
        verdict = kt.fine_tuning.Verdict(content | {"negative_transfer": None})
        print(verdict)
        assert verdict.best == "full"
        ```

    Reference:
        Wang, Dai, Póczos and Carbonell 2019, Characterizing and Avoiding Negative
        Transfer, arXiv:1811.09751.
    """

    kind = "verdict"

    @property
    def best(self) -> str | None:
        """The name of the row with the best mean; None if no row has finite values."""
        sign = 1 if self._content["larger"] else -1
        rows = [row for row in self._content["rows"] if None not in row["values"]]
        best = max(rows, key=lambda row: sign * np.mean(row["values"]), default=None)
        return None if best is None else best["strategy"]

    @property
    def negative_transfer(self) -> str | None:
        """ "yes", "no" or "undecided"; None if there is nothing to compare with."""
        found = self._content["negative_transfer"]
        return None if found is None else found["answer"]

    def plot(self, path: str | os.PathLike | None = None) -> Any:
        """Draw a bar for each row, with the deviation over seeds.

        Args:
            path: String or path of the file to write, such as "verdict.png". The suffix
                decides the format. Defaults to `None`, which writes no file.

        Returns:
            A `matplotlib.figure.Figure`, which pyplot does not manage.
        """
        rows = [row for row in self._content["rows"] if None not in row["values"]]
        names = [row["strategy"] for row in rows]
        labels = [f"{name}\n{MEANINGS[name]}" for name in names]
        means = [float(np.mean(row["values"])) for row in rows]
        deviations = [deviation(row["values"]) or 0.0 for row in rows]
        colors = [BLUE if name == self.best else GRAY for name in names]
        with styled():
            figure = new_figure(6, 0.9 + 0.5 * len(rows))
            ax = figure.subplots()
            bars = ax.barh(labels, means, xerr=deviations, color=colors, capsize=3)
            ax.bar_label(bars, [f"{mean:.3f}" for mean in means], padding=12)
            ax.set(xlabel=self._content["metric"])
            ax.margins(x=0.15)
            ax.invert_yaxis()
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def __repr__(self) -> str:
        return f"<Verdict, best: {self.best!r}. Use print() to show it>"

    def _images(self) -> Mapping[str, tuple[str, str]]:
        return {"verdict": (to_svg(self.plot()), "The mean of each row")}

    def _sections(self) -> Sequence[Section]:
        """Return the sections that all text formats share."""
        content = self._content
        references = sorted({name for row in content["rows"] for name in row["gains"]})
        header = [content["metric"], *(f"over {name}" for name in references)]
        columns = [
            key for key in COSTS if any(_known(row, key) for row in content["rows"])
        ]
        rows = [self._row(row, references, columns) for row in content["rows"]]
        items = []
        if content["negative_transfer"] is not None:
            found = content["negative_transfer"]
            items.append(f"negative transfer: {found['answer']}. {found['why']}")
        items += content["notes"]
        seeds = max(len(row["values"]) for row in content["rows"])
        note = "One run of each row, so there is no deviation."
        if seeds > 1:
            note = f"Mean ± standard deviation over {seeds} seeds"
            note += f"; {INTERVAL}." if references else "."
        if references and not content["larger"]:
            note += " A positive difference is better."
        table = Section(
            "verdict",
            f"Verdict: {self.best or 'no row'} is best",
            (note,),
            ("strategy", *header, *columns, "trained"),
            tuple(rows),
            items=tuple(items),
        )
        return [table]

    def _row(
        self, row: dict, references: Sequence[str], columns: Sequence[str]
    ) -> tuple[str, ...]:
        shown = mean_and_deviation(row["values"])
        name, chosen = row["strategy"], sorted(set(row["chosen"]))
        if chosen != [name]:
            name += f" ({', '.join(chosen)})"
        gains = [_gain(row["gains"].get(reference)) for reference in references]
        costs = [
            format(np.mean(row[key]), COSTS[key]) if _known(row, key) else ""
            for key in columns
        ]
        return name, shown, *gains, *costs, f"{row['parameters']:,}"


def verdict_of(
    results: Mapping[str, Sequence[Result]], notes: Sequence[str]
) -> Verdict:
    """Return the verdict on the results of each row, by seed."""
    scores = {name: [each.score for each in runs] for name, runs in results.items()}
    first = next(iter(scores.values()))[0]
    scores = {
        name: runs
        for name, runs in scores.items()
        if all(score.finite for score in runs)
    }
    rows = []
    for name, runs in results.items():
        gains = {}
        for reference in (SCRATCH, ZERO_SHOT):
            if {reference, name} <= set(scores) and reference != name:
                found = difference(scores[name], scores[reference])
                gains[reference] = [found.mean, found.low, found.high]
        rows.append(
            {
                "strategy": name,
                "values": [each.score.summary()["estimate"] for each in runs],
                "seconds": [each.seconds for each in runs],
                "CPU seconds": [each.cpu_seconds for each in runs],
                "kWh": [each.kwh for each in runs],
                "parameters": runs[0].parameters,
                "chosen": [each.chosen for each in runs],
                "gains": gains,
            }
        )
    found = negative_transfer(scores)
    answer = None if found is None else {"answer": found.answer, "why": found.why}
    return Verdict(
        {
            "metric": first.metric,
            "larger": first.larger,
            "rows": rows,
            "negative_transfer": answer,
            "notes": list(notes),
        }
    )


def _known(row: dict, key: str) -> bool:
    """Return whether all runs of a row have a cost. Earlier versions lack some."""
    return None not in row.get(key, [None])


def _gain(gain: Sequence | None) -> str:
    if gain is None:
        return ""
    mean, low, high = gain
    return f"{mean:+.3f}" if low is None else f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
