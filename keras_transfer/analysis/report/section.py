"""Section: a title, sentences and a table, which all formats of a result share."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Section:
    """A title, sentences, and an optional table.

    Args:
        name: Name of the section, such as "groups".
        title: The heading.
        notes: Sentences below the heading.
        header: Names of the columns. Empty if there is no table.
        rows: Rows of text cells.
        left: Indices of the columns with text, which are aligned to the left.
        footer: Number of rows at the end that are separated by a line.
        output: Name of the output, for a model with several outputs.
        items: Sentences of a bulleted list, which comes before the notes.
    """

    name: str
    title: str
    notes: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    left: tuple[int, ...] = (0,)
    footer: int = 0
    output: str = ""
    items: tuple[str, ...] = ()
