"""SavedResult: a result that is printed, shown in a notebook, and saved as a file."""

from __future__ import annotations

import abc
import copy
import json
import os
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from keras_transfer._whole_file import replace_file
from keras_transfer.analysis.report.html import document
from keras_transfer.analysis.report.html import plain_body
from keras_transfer.analysis.report.section import Section
from keras_transfer.analysis.report.text import to_markdown
from keras_transfer.analysis.report.text import to_text


class SavedResult(abc.ABC):
    """A result with the formats text, Markdown, JSON and HTML.

    Args:
        content: Dict that JSON can store, the content of the result.
    """

    kind = "result"  # in errors

    def __init__(self, content: dict) -> None:
        self._content = content

    @abc.abstractmethod
    def _sections(self) -> Sequence[Section]:
        """Return the sections that all text formats share."""

    def _title(self) -> str:
        """Return the title of the HTML page."""
        return self._sections()[0].title

    def _images(self) -> Mapping[str, tuple[str, str]]:
        """Return plots by the names of their sections, as pairs of SVG and words."""
        return {}

    def _repr_html_(self) -> str:
        return plain_body(self._sections(), self._images())

    def to_html(self) -> str:
        """Return a self-contained HTML page with plots, without scripts or links."""
        return document(self._title(), self._repr_html_())

    def sections(self) -> Sequence[Section]:
        """Return the titles, sentences and tables of the result."""
        return self._sections()

    def html_body(self) -> str:
        """Return the content of the HTML page, with its style and plots."""
        return self._repr_html_()

    def to_dict(self) -> dict:
        """Return a copy of the content, as a dict that JSON can store."""
        return copy.deepcopy(self._content)

    def to_json(self) -> str:
        """Return the content as JSON. Values that were not recorded are null."""
        return json.dumps(self._content, indent=2, allow_nan=False)

    def to_markdown(self) -> str:
        """Return the tables as Markdown."""
        return to_markdown(self._sections())

    def save(self, path: str | os.PathLike) -> None:
        """Write the result to a file. If writing fails, an existing file is kept.

        Args:
            path: String or path of the file. The suffix `.html`, `.md`, `.json` or
                `.txt` decides the format. An existing file is replaced.

        Raises:
            ValueError: If the suffix is not one of these, or the folder does not exist.
        """
        path = pathlib.Path(path)
        formats: dict[str, Any] = {
            ".html": self.to_html,
            ".md": self.to_markdown,
            ".json": self.to_json,
            ".txt": self.__str__,
        }
        make = formats.get(path.suffix.lower())
        if make is None:
            raise ValueError(
                f"The {self.kind} cannot be saved as {str(path)!r}: the suffix must be "
                f"one of {[*formats]}."
            )
        text = make().rstrip("\n") + "\n"
        # Texts of the user can contain characters that UTF-8 cannot encode.
        replace_file(path, text.encode(errors="backslashreplace"))

    def __str__(self) -> str:
        return to_text(self._sections())
