"""LearningCurve: the score by number of labels, and what more labels would bring."""

from __future__ import annotations

import os
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_transfer.analysis.report.plots import BLUE
from keras_transfer.analysis.report.plots import new_figure
from keras_transfer.analysis.report.plots import ORANGE
from keras_transfer.analysis.report.plots import styled
from keras_transfer.analysis.report.plots import to_svg
from keras_transfer.analysis.report.repeated import deviation
from keras_transfer.analysis.report.repeated import mean_and_deviation
from keras_transfer.analysis.report.saved_result import SavedResult
from keras_transfer.analysis.report.section import Section
from keras_transfer.fine_tuning.comparison.power_law import LEVEL
from keras_transfer.fine_tuning.comparison.power_law import PowerLaw
from keras_transfer.fine_tuning.comparison.results import Result

FACTORS = (2, 4)  # of the largest size, for which gains are forecast
ENOUGH = 4  # sizes for a law with three numbers


class LearningCurve(SavedResult):
    """The result of `kt.learning_curve`, as text, Markdown, JSON, HTML and a plot.

    `print(curve)` shows the table and says what more labels would bring.

    Args:
        content: Dict that JSON can store, the content of the curve.

    Example:
        ```python
        import keras_transfer as kt

        rows = [{"size": size, "values": [0.7, 0.8]} for size in (50, 100)]
        content = {"metric": "accuracy", "strategy": "lp-ft", "rows": rows}
        content |= {"forecasts": [], "law": None, "why_not": "Two sizes.", "notes": []}
        print(kt.fine_tuning.LearningCurve(content))
        ```

    Reference:
        Hestness et al. 2017, Deep Learning Scaling is Predictable, Empirically,
        arXiv:1712.00409.
    """

    kind = "learning curve"

    @property
    def forecasts(self) -> list[dict]:
        """What more labels would bring: dicts of size, change, low and high.

        The list is empty if no law can be fitted. An interval that contains 0 cannot
        tell whether more labels help.
        """
        return self.to_dict()["forecasts"]

    def plot(self, path: str | os.PathLike | None = None) -> Any:
        """Draw the score by number of labels, with the fitted law.

        Args:
            path: String or path of the file to write, such as "curve.png". The suffix
                decides the format. Defaults to `None`, which writes no file.

        Returns:
            A `matplotlib.figure.Figure`, which pyplot does not manage.
        """
        content = self._content
        rows = [row for row in content["rows"] if None not in row["values"]]
        sizes = [row["size"] for row in rows]
        means = [np.mean(row["values"]) for row in rows]
        deviations = [deviation(row["values"]) or 0.0 for row in rows]
        with styled():
            figure = new_figure(5.2, 3.4)
            ax = figure.subplots()
            ax.errorbar(
                sizes, means, deviations, color=BLUE, fmt="o", capsize=3, label="runs"
            )
            if content["law"] is not None:
                law = content["law"]
                ax.plot(law["sizes"], law["values"], color=ORANGE, label="power law")
                ax.axvline(sizes[-1], color="lightgray", linestyle=":")
                ax.legend(frameon=False)
            ax.set(xscale="log", xlabel="labels", ylabel=content["metric"])
            ax.set_xticks(sizes, [str(size) for size in sizes])
            ax.minorticks_off()
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def __repr__(self) -> str:
        sizes = [row["size"] for row in self._content["rows"]]
        return f"<LearningCurve of {sizes} labels. Use print() to show it>"

    def _images(self) -> Mapping[str, tuple[str, str]]:
        return {"curve": (to_svg(self.plot()), "The score by number of labels")}

    def _sections(self) -> Sequence[Section]:
        content = self._content
        rows = tuple(
            (f"{row['size']:,}", mean_and_deviation(row["values"]))
            for row in content["rows"]
        )
        items = [content["why_not"]] if content["why_not"] else []
        for each in content["forecasts"]:
            items.append(
                f"{each['size']:,} labels would change the {content['metric']} by "
                f"{each['change']:+.3f} (90 % interval {each['low']:+.3f} to "
                f"{each['high']:+.3f})."
            )
        header = ("labels", content["metric"])
        title = f"Learning curve of {content['strategy']}"
        items += content["notes"]
        return [Section("curve", title, (), header, rows, (), items=tuple(items))]


def curve_of(
    results: dict[int, Sequence[Result]], strategy: str, notes: Sequence[str]
) -> LearningCurve:
    """Return the curve of results by size and seed."""
    first = next(iter(results.values()))[0].score
    sign = 1 if first.larger else -1
    rows = [
        {"size": size, "values": [run.score.summary()["estimate"] for run in runs]}
        for size, runs in results.items()
    ]
    content = {"metric": first.metric, "strategy": strategy, "rows": rows}
    content |= {"forecasts": [], "law": None, "why_not": _why_not(results)}
    content["notes"] = list(notes)
    if content["why_not"]:
        return LearningCurve(content)
    sizes = np.array(list(results))
    losses = np.array([[-run.score.mean for run in runs] for runs in results.values()])
    # All sizes have the same test examples, whose error moves them equally.
    errors = _errors(losses)
    shares = first.larger and np.all((losses <= 0) & (losses >= -1))
    positive = not first.larger and np.all(losses >= 0)
    least = -1.0 if shares else (0.0 if positive else None)
    law = PowerLaw(sizes, losses.mean(1), errors, least)
    for factor in FACTORS:
        found = law.forecast(factor * sizes[-1])
        low, high = sorted([sign * found.low, sign * found.high])
        change = {"size": found.size, "change": sign * found.gain}
        content["forecasts"].append(change | {"low": low, "high": high})
    grid = np.geomspace(sizes[0], max(FACTORS) * sizes[-1], 60)
    values = -sign * law.losses(grid)
    content["law"] = {"sizes": grid.tolist(), "values": values.tolist()}
    twice = law.forecast(2 * sizes[-1])
    if twice.low <= 0 < twice.high:
        content["why_not"] = (
            "The curve cannot tell whether more labels help: the interval contains 0. "
            "More seeds or more sizes would narrow it."
        )
    return LearningCurve(content)


def _errors(losses: np.ndarray) -> np.ndarray:
    """Return the standard error of each mean, widened because it is an estimate.

    The deviation of two or three runs can be small by accident, so it is at least that
    of all sizes together. The factor is that of Student's t.
    """
    from scipy.stats import norm
    from scipy.stats import t

    sizes, seeds = losses.shape
    spread = losses.std(axis=1, ddof=1)
    pooled = np.sqrt(np.mean(spread**2))
    tail = 0.5 + LEVEL / 2
    factor = t.ppf(tail, sizes * (seeds - 1)) / norm.ppf(tail)
    return factor * np.maximum(spread, pooled) / np.sqrt(seeds)


def _why_not(results: dict[int, Sequence[Result]]) -> str | None:
    """Return why no law can be fitted, or None."""
    if not all(run.score.finite for runs in results.values() for run in runs):
        return "No forecast: some runs have values that are not finite."
    if len(results) < ENOUGH:
        return (
            f"No forecast: {len(results)} sizes are too few for a power law, which has "
            f"three numbers. Pass at least {ENOUGH} sizes."
        )
    if len(next(iter(results.values()))) < 2:
        return (
            "No forecast: one seed does not show how much the results vary from run to "
            "run. Use seeds=3 or more."
        )
    return None
