"""The Report class, which formats a report as text, Markdown, JSON and HTML."""

import copy
import json
import os
import pathlib

from keras_transfer._whole_file import replace_file
from keras_transfer.analysis.report.html import body
from keras_transfer.analysis.report.html import page
from keras_transfer.analysis.report.tables import sections
from keras_transfer.analysis.report.text import to_markdown
from keras_transfer.analysis.report.text import to_text


class Report:
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

    def __init__(self, content: dict, examples: list | None = None) -> None:
        self._content = content
        self._examples = list(examples or [])

    def to_dict(self) -> dict:
        """Return a copy of the content, as a dict that JSON can store."""
        return copy.deepcopy(self._content)

    def to_json(self) -> str:
        """Return the content as JSON. Values that were not recorded are null."""
        return json.dumps(self._content, indent=2, allow_nan=False)

    def to_markdown(self) -> str:
        """Return the tables as Markdown."""
        return to_markdown(sections(self._content))

    def to_html(self) -> str:
        """Return a self-contained HTML page with plots, without scripts or links."""
        return page(self._content, self._examples)

    def save(self, path: str | os.PathLike) -> None:
        """Write the report to a file. If writing fails, an existing file is kept.

        Args:
            path: String or path of the file. The suffix `.html`, `.md`, `.json` or
                `.txt` decides the format. An existing file is replaced.

        Raises:
            ValueError: If the suffix is not one of these, or the folder does not exist.
        """
        path = pathlib.Path(path)
        formats = {
            ".html": self.to_html,
            ".md": self.to_markdown,
            ".json": self.to_json,
            ".txt": self.__str__,
        }
        make = formats.get(path.suffix.lower())
        if make is None:
            raise ValueError(
                f"The report cannot be saved as {str(path)!r}: the suffix must be one "
                f"of {[*formats]}."
            )
        text = make().rstrip("\n") + "\n"
        # Texts of the user can contain characters that UTF-8 cannot encode.
        replace_file(path, text.encode(errors="backslashreplace"))

    def __str__(self) -> str:
        return to_text(sections(self._content))

    def __repr__(self) -> str:
        return f"<Report of {self._content['model']['name']!r}. Use print() to show it>"

    def _repr_html_(self) -> str:
        return body(self._content, self._examples)
