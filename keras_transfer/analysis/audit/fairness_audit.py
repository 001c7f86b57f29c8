"""FairnessAudit: the result of `fairness`, as text, Markdown, JSON, HTML and a plot."""

from __future__ import annotations

import os
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from keras_transfer._arguments import one_of
from keras_transfer.analysis.audit.fairness_plot import draw
from keras_transfer.analysis.audit.fairness_sections import sections
from keras_transfer.analysis.report.plots import styled
from keras_transfer.analysis.report.plots import to_svg
from keras_transfer.analysis.report.saved_result import SavedResult
from keras_transfer.analysis.report.tables import Section


class FairnessAudit(SavedResult):
    """The result of `kt.analysis.fairness`, as text, Markdown, JSON, HTML and a plot.

    `print(audit)` shows the tables, and a notebook shows them with the plots. A value
    is a list `[value, low, high]` with the ends of its 95 % interval; None where it is
    not defined. The audit does not contain the examples or the models.

    Args:
        content: Dict that JSON can store, the content of the audit.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
        model.set_weights([np.ones((1, 1)), np.zeros(1)])
        x, y = np.array([[1.0], [1.0], [-1.0], [1.0]]), np.array([1, 0, 0, 1])
        groups = {"sex": ["w", "w", "m", "m"]}
        audit = kt.analysis.fairness(model, (x, y), groups, smallest=2)
        assert audit.values("positive_rate", "sex") == {"m": 0.5, "w": 1.0}
        assert audit.difference("positive_rate", "sex")[0] == 0.5
        ```

    Reference:
        Mitchell et al. 2019, Model Cards for Model Reporting, arXiv:1810.03993
        (quantitative analyses by group and by intersection).
    """

    kind = "fairness audit"

    def values(
        self,
        measure: str,
        attribute: str,
        *,
        positive: int | None = None,
        of: str = "model",
    ) -> dict[str, float | None]:
        """Return the value of a measure for each group; None if it is not defined.

        Args:
            measure: Name of the measure, such as "positive_rate" or "accuracy".
            attribute: Name of the attribute. For an array of groups: "group", or the
                name of the Series.
            positive: Number of the class. Defaults to None: the first class.
            of: "model" or "baseline". Defaults to "model".

        Raises:
            ValueError: If there is no such measure, attribute or class, or no baseline.
        """
        found = self._measure(measure, attribute, positive, of)
        groups = self._attribute(attribute)["groups"]
        return {
            group["name"]: value[0]
            for group, value in zip(groups, found["values"], strict=True)
        }

    def difference(
        self,
        measure: str,
        attribute: str,
        *,
        positive: int | None = None,
        of: str = "model",
    ) -> list[float | None] | None:
        """Return the largest difference as `[value, low, high]`.

        Args:
            measure: As in `values`.
            attribute: As in `values`.
            positive: As in `values`.
            of: "model", "baseline", or "change" for the difference of the model minus
                that of the baseline. Defaults to "model".

        Returns:
            A list; None if fewer than two groups are large enough and have a value.

        Raises:
            ValueError: As in `values`.
        """
        found = self._measure(measure, attribute, positive, of)
        if of == "change":
            return found
        return found["largest"] and found["largest"]["difference"]

    def plot(
        self,
        path: str | os.PathLike | None = None,
        *,
        attribute: str | None = None,
        positive: int | None = None,
    ) -> Any:
        """Draw the measures of each group of one attribute, with their intervals.

        Args:
            path: String or path of the file to write, such as "audit.png". The suffix
                decides the format. Defaults to `None`, which writes no file.
            attribute: Name of the attribute. Defaults to None, the first one.
            positive: Number of the class. Defaults to None: the first class.

        Returns:
            A `matplotlib.figure.Figure`, which pyplot does not manage.

        Raises:
            ValueError: If there is no such attribute or class.
        """
        if attribute is None:
            attribute = self._content["attributes"][0]["name"]
        positive = self._positive(positive)
        with styled():
            figure = draw(self._content, self._attribute(attribute), positive)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def __repr__(self) -> str:
        names = [each["name"] for each in self._content["attributes"]]
        return f"<FairnessAudit by {names}. Use print() to show it>"

    def _images(self) -> Mapping[str, tuple[str, str]]:
        images = {}
        with styled():
            for each in self._content["attributes"]:
                figure = draw(self._content, each, self._positive(None))
                words = f"Measures by {each['name']}, with intervals"
                images[f"groups of {each['name']}"] = (to_svg(figure), words)
        return images

    def _sections(self) -> Sequence[Section]:
        return sections(self._content)

    def _attribute(self, name: str) -> dict:
        found = {each["name"]: each for each in self._content["attributes"]}
        return found[one_of("attribute", name, found)]

    def _positive(self, positive: int | None) -> int | None:
        known = self._content["positive"]
        if positive is None:
            return known[0] if known else None
        return one_of("positive", positive, known, "the classes of this audit")

    def _measure(
        self, measure: str, attribute: str, positive: int | None, of: str
    ) -> Any:
        known = self._attribute(attribute)["measures"]
        one_of("measure", measure, list(dict.fromkeys(m["measure"] for m in known)))
        one_of("of", of, ("model", "baseline", "change"))
        number = None if measure == "accuracy" else self._positive(positive)
        (found,) = [
            m for m in known if m["measure"] == measure and m["class"] == number
        ]
        if found[of] is None:
            raise ValueError(
                f"The audit has no {measure!r} of the {of}: there is no baseline, or "
                "the measure is of the labels only."
            )
        return found[of]
