"""interpolation_curve: scores between a start and a fine-tuned model, by domain."""

from __future__ import annotations

import os
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer._arguments import fraction
from keras_transfer.analysis.report.plots import new_figure
from keras_transfer.analysis.report.plots import styled
from keras_transfer.analysis.report.plots import to_svg
from keras_transfer.analysis.report.saved_result import SavedResult
from keras_transfer.analysis.report.section import Section
from keras_transfer.models.averaged_weights import WeightAverage
from keras_transfer.models.held_out_score import held_out_score

WEIGHTS = tuple(np.linspace(0, 1, 11).round(1).tolist())


class InterpolationCurve(SavedResult):
    """The result of `kt.models.interpolation_curve`, as text, JSON, HTML and a plot.

    `print(curve)` shows the table: a row for each weight and a column for each domain.

    Args:
        content: Dict that JSON can store, the content of the curve.

    Example:
        ```python
        import keras_transfer as kt

        content = {"metric": "accuracy", "larger": True, "weights": [0.0, 0.5, 1.0]}
        content["scores"] = {"old": [0.9, 0.85, 0.6], "new": [0.5, 0.8, 0.82]}
        curve = kt.models.InterpolationCurve(content)
        assert curve.best() == 0.5 and curve.best("new") == 1.0
        ```

    Reference:
        Wortsman et al. 2022, Robust Fine-Tuning of Zero-Shot Models, arXiv:2109.01903,
        figure 1.
    """

    kind = "interpolation curve"

    def best(self, domain: str | None = None) -> float:
        """Return the weight with the best score. Of equal ones, the nearest to 1.

        Args:
            domain: Name of a domain. Defaults to None: the mean over all domains.

        Raises:
            ValueError: If the domain is unknown, or no score is finite.
        """
        scores = self._content["scores"]
        if domain is not None and domain not in scores:
            raise ValueError(
                f"domain={domain!r} is unknown. The domains are {[*scores]}."
            )
        chosen = scores.values() if domain is None else [scores[domain]]
        mean = np.mean([[_number(v) for v in each] for each in chosen], axis=0)
        mean = mean if self._content["larger"] else -mean
        if not np.isfinite(mean).any():
            raise ValueError("No score of the curve is finite, so none is the best.")
        place = np.flatnonzero(mean == np.nanmax(mean))[-1]
        return self._content["weights"][place]

    def plot(self, path: str | os.PathLike | None = None) -> Any:
        """Draw the score by weight, with a line for each domain.

        Args:
            path: String or path of the file to write, such as "curve.png". The suffix
                decides the format. Defaults to `None`, which writes no file.

        Returns:
            A `matplotlib.figure.Figure`, which pyplot does not manage.
        """
        content = self._content
        with styled():
            figure = new_figure(5.2, 3.4)
            ax = figure.subplots()
            for name, scores in content["scores"].items():
                values = [_number(each) for each in scores]
                ax.plot(content["weights"], values, marker="o", label=name)
            ax.set(xlabel="share of the fine-tuned model", ylabel=content["metric"])
            ax.legend(frameon=False)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def __repr__(self) -> str:
        names = [*self._content["scores"]]
        return f"<InterpolationCurve on {names}. Use print() to show it>"

    def _images(self) -> Mapping[str, tuple[str, str]]:
        return {"curve": (to_svg(self.plot()), "The score by weight")}

    def _sections(self) -> Sequence[Section]:
        content = self._content
        columns = [
            ["not finite" if each is None else f"{each:.4f}" for each in scores]
            for scores in content["scores"].values()
        ]
        weights = [f"{each:g}" for each in content["weights"]]
        rows = tuple(zip(weights, *columns, strict=True))
        title = f"The {content['metric']} from the start (0) to the tuned model (1)"
        header = ("weight", *content["scores"])
        return [Section("curve", title, (), header, rows, ())]


def interpolation_curve(
    start: keras.Model | Sequence[np.ndarray],
    tuned: keras.Model,
    domains: Mapping[str, Any],
    *,
    weights: Sequence[float] = WEIGHTS,
    metric: str | None = None,
    batch_norm_data: Any = None,
) -> InterpolationCurve:
    """Measure models between a start and a fine-tuned model, on one or more domains.

    Choose the weight on held-out data of both domains, and give it to `interpolate`.
    Neither model changes.

    Args:
        start: As in `interpolate`.
        tuned: As in `interpolate`, compiled.
        domains: Dict from a name to held-out data: `(x, y)` as arrays, or a batched
            dataset. A dataset is read once for each weight.
        weights: Numbers from 0 to 1. Defaults to 0, 0.1, ... 1.
        metric: Name of the metric. Defaults to None: the first compiled metric with a
            known direction, and otherwise the loss.
        batch_norm_data: As in `interpolate`.

    Returns:
        An `InterpolationCurve`.

    Raises:
        TypeError: If `domains` is not a dict, or data is of an unknown kind.
        ValueError: As in `interpolate`, and if there is no domain or no weight, `tuned`
            is not compiled, the metric is unknown, or data is empty.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        start = model.get_weights()
        model.compile("sgd", "mse")
        x, y = np.random.rand(16, 4), np.random.rand(16, 1)
        model.fit(x, y, verbose=0)
        domains = {"old": (1 - x, y), "new": (x, y)}
        curve = kt.models.interpolation_curve(start, model, domains, weights=[0, 1])
        model = kt.models.interpolate(start, model, curve.best())
        ```

    Reference:
        Wortsman et al. 2022, Robust Fine-Tuning of Zero-Shot Models, arXiv:2109.01903.
    """
    if not isinstance(domains, Mapping):
        raise TypeError(
            f"domains is a {type(domains).__name__}. Pass a dict from the name of each "
            'domain to its held-out data, such as {"new": (x, y)}.'
        )
    weights = [fraction(f"weights[{i}]", each) for i, each in enumerate(weights)]
    if not domains or not weights:
        missing = "domains" if not domains else "weights"
        raise ValueError(f"`{missing}` is empty, so there is nothing to measure.")
    average = WeightAverage([start, tuned], batch_norm_data)
    scores = {name: [] for name in domains}
    for weight in weights:
        model = average.set([1 - weight, weight])
        for name, data in domains.items():
            found = held_out_score(model, data, metric, f"domains[{name!r}]")
            value = found.value if np.isfinite(found.value) else None
            scores[name].append(value)
    content = {"metric": found.metric, "larger": found.larger, "weights": weights}
    return InterpolationCurve(content | {"scores": scores})


def _number(value: float | None) -> float:
    return np.nan if value is None else value
