"""The Report class, which formats a report as text, Markdown, JSON and HTML."""

from collections.abc import Sequence

from keras_transfer.analysis.report.html import body
from keras_transfer.analysis.report.html import page
from keras_transfer.analysis.report.saved_result import SavedResult
from keras_transfer.analysis.report.section import Section
from keras_transfer.analysis.report.tables import sections


class Report(SavedResult):
    """The result of `report`, as text, Markdown, JSON and HTML.

    `print(report)` shows the report as text. A notebook shows the report with plots.
    The report describes the model at the time of the call. It does not contain a
    reference to the model, so it does not change later.

    Args:
        content: Dict that JSON can store, the content of the report. A value of None
            was not recorded. The key "not_recorded" contains the reasons.
        examples: List of the inputs for `content["evaluation"]["worst"]`. HTML shows
            the images among them. For several outputs, the list contains the inputs for
            all outputs, in the order of `content["evaluation"]["by_output"]`. Defaults
            to `None`, no inputs.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        report = kt.report(model)
        assert report.to_dict()["model"]["parameters"] == 10
        assert report.to_dict()["phases"] is None
        print(report)
        report.save("report.html")
        ```

    Reference:
        Mitchell et al. 2019, Model Cards for Model Reporting, arXiv:1810.03993.
    """

    kind = "report"

    def __init__(self, content: dict, examples: list | None = None) -> None:
        super().__init__(content)
        self._examples = list(examples or [])

    def _sections(self) -> Sequence[Section]:
        """Return the sections that all text formats share."""
        return sections(self._content)

    def to_html(self) -> str:
        """Return a self-contained HTML page with plots, without scripts or links."""
        return page(self._content, self._examples)

    def __repr__(self) -> str:
        return f"<Report of {self._content['model']['name']!r}. Use print() to show it>"

    def _repr_html_(self) -> str:
        return body(self._content, self._examples)
