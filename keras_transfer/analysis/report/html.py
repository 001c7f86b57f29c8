"""Format a report as one HTML page without scripts, links or other files."""

import base64
from collections.abc import Mapping
from collections.abc import Sequence
from html import escape
from typing import Any

from keras_transfer.analysis.report.plots import plots
from keras_transfer.analysis.report.section import Section
from keras_transfer.analysis.report.shown_examples import picture
from keras_transfer.analysis.report.tables import clean
from keras_transfer.analysis.report.tables import MISSING
from keras_transfer.analysis.report.tables import sections

WIDTH = 600  # largest number of characters in a cell
ABOVE = {"groups": "moved", "phases": "curves"}  # sections with a plot above the table
INSTEAD = {"confusion": "confusion"}  # sections with a plot instead of the table
PICTURES = {
    "moved": "How far each layer group moved, from the stem to the head",
    "curves": "Learning curves with the phases of training",
    "confusion": "Confusion matrix",
}
STYLE = """
.kt-report { font: 15px/1.45 system-ui, sans-serif; color: #1d2430; background: #fff;
  max-width: 62em; margin: 0 auto; padding: 1em; }
.kt-report h1 { font-size: 1.5em; overflow-wrap: anywhere; }
.kt-report h2 { font-size: 1.15em; margin: 2em 0 0.4em; border-bottom: 1px solid #ccd; }
.kt-report p { margin: 0.3em 0; }
.kt-report ul { margin: 0.3em 0; padding-left: 1.3em; }
.kt-report li { margin: 0.2em 0; overflow-wrap: anywhere; }
.kt-report .scroll { overflow-x: auto; }
.kt-report table { border-collapse: collapse; margin: 0.8em 0; font-size: 0.9em; }
.kt-report th, .kt-report td { padding: 0.25em 0.8em; text-align: right;
  vertical-align: top; border-bottom: 1px solid #e4e7ec; background: #fff;
  color: #1d2430; font-variant-numeric: tabular-nums; }
.kt-report th { border-bottom: 2px solid #aab; white-space: nowrap; }
.kt-report .left { text-align: left; overflow-wrap: anywhere; }
.kt-report .footer td { font-weight: 600; background: #f5f6f8; }
.kt-report .none { color: #8a8f98; font-style: italic; font-weight: 400;
  white-space: nowrap; }
.kt-report img { max-width: 100%; height: auto; display: block; margin: 0.8em 0; }
.kt-report td img { width: 80px; margin: 0; image-rendering: pixelated; }
"""


def page(content: dict, examples: Sequence[Any]) -> str:
    """Return the whole page."""
    title = f"Report of {clean(content['model']['name'])}"
    return document(title, body(content, examples))


def document(title: str, inner: str) -> str:
    """Return a page with the content `inner`."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n</head>\n<body>\n"
        f"{inner}\n</body>\n</html>\n"
    )


def plain_body(shown: Sequence[Section], images: Mapping[str, tuple[str, str]]) -> str:
    """Return sections as the content of a page.

    Args:
        shown: The sections.
        images: Dict from names of sections to pairs of SVG and words. An image comes
            above the table of its section.
    """
    parts = [f"<style>{STYLE}</style>"]
    for level, section in enumerate(shown):
        parts += _heading(section, level)
        if section.name in images:
            parts.append(_image(*images[section.name]))
        if section.rows:
            parts.append(_table(section, ()))
    return _framed(parts)


def body(content: dict, examples: Sequence[Any]) -> str:
    """Return the content of the page, including the style."""
    images = plots(content)
    parts, left = [f"<style>{STYLE}</style>"], list(examples)
    for level, section in enumerate(sections(content)):
        parts += _heading(section, level)
        name = ABOVE.get(section.name) or INSTEAD.get(section.name)
        drawn = images.get((name, section.output) if section.output else name)
        if drawn:
            parts.append(_image(drawn, PICTURES[name]))
        if section.rows and not (section.name in INSTEAD and drawn):
            parts.append(_table(section, left))
        if section.name == "worst":
            del left[: len(section.rows)]  # the rest belongs to the next outputs
    return _framed(parts)


def _heading(section: Section, level: int) -> list[str]:
    tag = "h2" if level else "h1"
    parts = [f"<{tag}>{escape(section.title)}</{tag}>"]
    if section.items:
        items = "\n".join(f"<li>{escape(item)}</li>" for item in section.items)
        parts.append(f"<ul>\n{items}\n</ul>")
    return parts + [f"<p>{escape(note)}</p>" for note in section.notes]


def _framed(parts: Sequence[str]) -> str:
    inner = "\n".join(parts)
    return f'<div class="kt-report">\n{inner}\n</div>'


def _image(svg: str, words: str) -> str:
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{escape(words)}" src="data:image/svg+xml;base64,{data}">'


def _table(section: Section, examples: Sequence[Any]) -> str:
    head = "".join(
        f"<th{_class(section, i)}>{escape(cell)}</th>"
        for i, cell in enumerate(section.header)
    )
    lines = [f"<tr>{head}</tr>"]
    for number, row in enumerate(section.rows):
        cells = [
            f"<td{_class(section, i, cell)}>{escape(_short(cell))}</td>"
            for i, cell in enumerate(row)
        ]
        if section.name == "worst" and number < len(examples):
            png = picture(examples[number])
            if png:
                words = escape(row[-1])
                source = f"data:image/png;base64,{png}"
                cells[-1] = f'<td class="left"><img alt="{words}" src="{source}"></td>'
        last = number >= len(section.rows) - section.footer
        kind = ' class="footer"' if last else ""
        lines.append(f"<tr{kind}>{''.join(cells)}</tr>")
    rows = "\n".join(lines)
    return f'<div class="scroll"><table>\n{rows}\n</table></div>'


def _class(section: Section, column: int, cell: str = "") -> str:
    names = " ".join(["left"] * (column in section.left) + ["none"] * (cell == MISSING))
    return f' class="{names}"' if names else ""


def _short(text: str) -> str:
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
