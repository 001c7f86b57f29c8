"""ModelCard: Markdown with metadata, HTML, JSON and text."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence

from keras_transfer._whole_file import replace_file
from keras_transfer.analysis.model_card.front_matter import front_matter
from keras_transfer.analysis.report.html import plain_body
from keras_transfer.analysis.report.saved_result import SavedResult
from keras_transfer.analysis.report.section import Section

README = "README.md"  # the name of a card on the Hugging Face Hub
MARK = "<!-- card of keras_transfer -->"


class ModelCard(SavedResult):
    """The result of `kt.model_card`: Markdown for a model hub, HTML, JSON and text.

    `to_markdown()` begins with the metadata that the Hugging Face Hub reads. What
    nobody recorded is "not recorded".

    Args:
        content: Dict that JSON can store, the content of the card.
        bodies: Dict from the kinds of results to their HTML with plots, which is shown
            instead of the tables. Defaults to None, only tables.

    Example:
        ```python
        import pathlib
        import tempfile

        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        card = kt.model_card(model, "Reviews", metadata={"license": "mit"})
        assert card.to_markdown().startswith('---\\nlibrary_name: "keras"')
        with tempfile.TemporaryDirectory() as folder:
            path = card.save_beside(folder)
            assert path == pathlib.Path(folder, "README.md")
        ```

    Reference:
        Mitchell et al. 2019, Model Cards for Model Reporting, arXiv:1810.03993.
    """

    kind = "model card"

    def __init__(self, content: dict, bodies: Mapping[str, str] | None = None) -> None:
        super().__init__(content)
        self._bodies = dict(bodies or {})

    def to_markdown(self) -> str:
        """Return the card as Markdown that begins with its metadata."""
        values = self._content["metadata"]
        return f"{front_matter(values)}{MARK}\n\n{super().to_markdown()}"

    def save_beside(self, path: str | os.PathLike) -> pathlib.Path:
        """Write the card as Markdown next to the files of the model.

        Args:
            path: The folder of a SavedModel or of PEFT's files, which gets the file
                README.md, or the file of an adapter or a model, such as
                "reviews.safetensors", which gets "reviews.md" next to it.

        Returns:
            The path of the card.

        Raises:
            FileNotFoundError: If there is nothing at `path`.
            FileExistsError: If there is a folder of this name, or a file that is not a
                card of this package. A card is replaced.
        """
        path = pathlib.Path(path)
        if not path.exists():
            raise FileNotFoundError(
                f"There is no file or folder at {str(path)!r}. Save the model first."
            )
        target = path / README if path.is_dir() else path.with_suffix(".md")
        if target.is_dir():
            raise FileExistsError(
                f"{str(target)!r} is a folder. Move it, or write the card to another "
                "place with `save`."
            )
        if target.exists() and MARK not in target.read_text(
            encoding="utf-8", errors="replace"
        ):
            raise FileExistsError(
                f"{str(target)!r} exists and is not a card of this package. Move it, "
                "or write the card to another place with `save`."
            )
        text = self.to_markdown().rstrip("\n") + "\n"
        replace_file(target, text.encode(errors="backslashreplace"))
        return target

    def __repr__(self) -> str:
        return f"<ModelCard of {self._content['name']!r}. Use print() to show it>"

    def _title(self) -> str:
        return self._content["name"]

    def _repr_html_(self) -> str:
        return "\n".join(
            self._bodies.get(part["result"]) or plain_body(_sections_of(part), {})
            for part in self._content["parts"]
        )

    def _sections(self) -> Sequence[Section]:
        """Return the sections that all text formats share."""
        return [each for part in self._content["parts"] for each in _sections_of(part)]


def _sections_of(part: dict) -> list[Section]:
    """Return the sections of a part, which has lists instead of tuples after JSON."""
    found = []
    for config in part["sections"]:
        lists = ("notes", "header", "left", "items")
        texts = {key: tuple(config[key]) for key in lists}
        rows = tuple(map(tuple, config["rows"]))
        found.append(Section(**config | texts | {"rows": rows}))
    return found
