"""Format a report as aligned text and as Markdown."""

import html
import re
import unicodedata
from collections.abc import Sequence

from keras_transfer.analysis.report.section import Section

EXAMPLE = 60  # largest number of characters in a cell of an example, in text
CELL = 300  # largest number of characters in all other cells
SPECIAL = re.compile(r"([\\`*_\[\]|~$#])")
# What begins a list or a line across the page at the start of a paragraph.
FIRST = re.compile(r"^(?:([-+])(?=\s|-|$)|(\d{1,9})([.)])(?=\s|$))")


def to_text(sections: Sequence[Section]) -> str:
    """Return sections as text with aligned columns."""
    blocks = []
    for section in sections:
        lines = [section.title, "=" * _width(section.title)]
        lines += [f"- {item}" for item in section.items]
        lines += section.notes
        if section.rows:
            lines += _aligned(section)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def to_markdown(sections: Sequence[Section]) -> str:
    """Return sections as Markdown, with special characters escaped."""
    blocks = []
    for level, section in enumerate(sections):
        blocks.append(f"{'##' if level else '#'} {_escape(section.title)}")
        if section.items:
            blocks.append("\n".join(f"- {_paragraph(item)}" for item in section.items))
        blocks += [_paragraph(note) for note in section.notes]
        if section.rows:
            columns = range(len(section.header))
            rule = [":--" if i in section.left else "--:" for i in columns]
            rows = [
                [_escape(_short(cell, CELL)) for cell in row]
                for row in (section.header, *section.rows)
            ]
            rows.insert(1, rule)
            blocks.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return "\n\n".join(blocks)


def _aligned(section: Section) -> list[str]:
    width = EXAMPLE if section.name == "worst" else CELL
    rows = [
        [_short(cell, width) for cell in row] for row in (section.header, *section.rows)
    ]
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - _width(cell))
            cells.append(cell + space if i in section.left else space + cell)
        lines.append("  ".join(cells).rstrip())
    rule = "-" * (sum(widths) + 2 * len(widths) - 2)
    lines.insert(1, rule)
    if section.footer:
        lines.insert(-section.footer, rule)
    return lines


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3].rstrip() + "..."


def _width(text: str) -> int:
    """Return the display width of `text`. East Asian characters take two columns."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def _paragraph(text: str) -> str:
    return FIRST.sub(r"\2\\\1\3", _escape(text))


def _escape(text: str) -> str:
    return SPECIAL.sub(r"\\\1", html.escape(text, quote=False))
