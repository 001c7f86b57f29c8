"""Report: what was found about a model, as text, Markdown, JSON and HTML."""

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
    """What `report` found out about a model, as text, Markdown, JSON and HTML.

    `print(report)` shows it as text, and a notebook shows it with its plots. It is a
    record of the moment when it was made and holds no model.

    Args:
        content: Dict of what was found, JSON-plain. None is what was not recorded;
            its key "not_recorded" says why.
        examples: List of the inputs that belong to `content["evaluation"]["worst"]`,
            of which pictures are drawn; of several outputs those of all, in the order
            of `content["evaluation"]["by_output"]`. Default: none.

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
        """Return all that was found as a JSON-plain dict, a copy."""
        return copy.deepcopy(self._content)

    def to_json(self) -> str:
        """Return `to_dict` as JSON; what was not recorded is null."""
        return json.dumps(self._content, indent=2, allow_nan=False)

    def to_markdown(self) -> str:
        """Return the tables as Markdown."""
        return to_markdown(sections(self._content))

    def to_html(self) -> str:
        """Return one self-contained HTML page with plots: no script, no link."""
        return page(self._content, self._examples)

    def save(self, path: str | os.PathLike) -> None:
        """Write the report to a file, whole or not at all.

        Args:
            path: Where to; the suffix `.html`, `.md`, `.json` or `.txt` says what. A
                file that is there is replaced.

        Raises:
            ValueError: If the suffix is another, or the folder does not exist.
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
        # A text of the user's may hold what UTF-8 cannot.
        replace_file(path, text.encode(errors="backslashreplace"))

    def __str__(self) -> str:
        return to_text(sections(self._content))

    def __repr__(self) -> str:
        return f"<Report of {self._content['model']['name']!r}; print() shows it>"

    def _repr_html_(self) -> str:
        return body(self._content, self._examples)
