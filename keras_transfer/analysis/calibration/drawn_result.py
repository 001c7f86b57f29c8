"""DrawnResult: a saved result with one figure, which can be a PNG file too."""

from __future__ import annotations

import abc
import io
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from keras_transfer._whole_file import replace_file
from keras_transfer.analysis.report.plots import styled
from keras_transfer.analysis.report.plots import to_svg
from keras_transfer.analysis.report.saved_result import SavedResult


class DrawnResult(SavedResult):
    """A result with a figure above its first table.

    Args:
        content: Dict that JSON can store, the content of the result.
    """

    words = "Figure"  # what the figure shows, for readers who cannot see it

    @abc.abstractmethod
    def _draw(self) -> Any:
        """Return a new figure of matplotlib."""

    def plot(self, path: str | os.PathLike | None = None) -> Any:
        """Draw the figure.

        Args:
            path: String or path of a PNG file to write. Defaults to `None`, which
                writes no file.

        Returns:
            A `matplotlib.figure.Figure`, which pyplot does not manage.

        Raises:
            ValueError: If the suffix is not `.png`, or the folder does not exist.
        """
        figure = self._draw()
        if path is not None:
            path = pathlib.Path(path)
            if path.suffix.lower() != ".png":
                raise ValueError(
                    f"The figure cannot be saved as {str(path)!r}: the suffix must be "
                    "'.png'. For other formats, call figure.savefig."
                )
            buffer = io.BytesIO()
            with styled():
                figure.savefig(buffer, format="png", dpi=150)
            replace_file(path, buffer.getvalue())
        return figure

    def save(self, path: str | os.PathLike) -> None:
        """Write the result to a file. If writing fails, an existing file is kept.

        Args:
            path: String or path of the file. The suffix `.html`, `.md`, `.json`,
                `.txt` or `.png` decides the format. An existing file is replaced.

        Raises:
            ValueError: If the suffix is not one of these, or the folder does not exist.
        """
        if pathlib.Path(path).suffix.lower() == ".png":
            self.plot(path)
        else:
            super().save(path)

    def _images(self) -> Mapping[str, tuple[str, str]]:
        with styled():
            drawn = to_svg(self._draw())
        return {self._sections()[0].name: (drawn, self.words)}
