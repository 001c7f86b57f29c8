"""Write examples/TECHNIQUES.md: every public name, what it does, and its paper.

The table is made from the docstrings: the first sentence and the section `Reference:`.

    python -m tests.techniques
"""

import inspect
import re
import sys

from tests.public import components
from tests.public import ROOT

PATH = ROOT / "examples" / "TECHNIQUES.md"
COMMAND = "python -m tests.techniques"
# From the first steps to the last; a package that is not listed comes at the end.
ORDER = (
    "fine_tuning",
    "backbones",
    "callbacks",
    "optimizers",
    "models",
    "adapters",
    "layers",
    "losses",
    "data",
    "analysis",
    "saving",
    "distribute",
    "export",
)
START = f"""# Techniques

This page lists every public name of `keras_transfer`, imported as `kt`. Each row says
what the name does, and which paper or documentation it follows. Python's `help`, as in
`help(kt.fine_tune)`, prints the arguments, an example and the full reference.

`{COMMAND}` writes this page from the docstrings. Do not edit it by hand.
"""

WORD = r"[A-ZÀ-Ž][\w'-]+"
INITIAL = r"[A-Z]\.(?:-[A-Z]\.)* "
AUTHOR = (
    rf"(?:(?:{INITIAL})+{WORD}(?: {WORD})?|(?:van der |van |de |De |Tjong Kim )?{WORD})"
)
CITATION = re.compile(
    rf"\b({AUTHOR}(?:, {AUTHOR})*(?:,? and {AUTHOR})?(?: et al\.)?),? ((?:19|20)\d\d)\b"
)
ARXIV = re.compile(r"arXiv[: ] ?(\d{4}\.\d{4,5})")


def first_sentence(component):
    """Return the first sentence of a docstring."""
    line = (inspect.getdoc(component) or "").partition("\n")[0]
    return re.split(r"(?<=[.]) (?=[A-Z`])", line)[0]


def reference_of(component):
    """Return the section `Reference:` of a docstring in one line, or ""."""
    doc = inspect.getdoc(component) or ""
    found = re.search(r"^Reference:\n(.*?)(?=^\S|\Z)", doc, flags=re.M | re.S)
    return " ".join(found[1].split()) if found else ""


def authors(text):
    """Return the authors as a text cites them: one, two, or the first et al."""
    text = re.sub(rf"\b{INITIAL}", "", text)
    if "et al." in text:
        return text
    names = re.split(r",? and |, ", text)
    return " and ".join(names) if len(names) < 3 else f"{names[0]} et al."


def title(text):
    """Return the title that follows a year: in quotes, or up to the publisher."""
    text = text.strip(" ,.;")
    if text.startswith('"'):
        return text[1:].partition('"')[0].strip(",.")
    return text.rpartition(", ")[0] or text


def short(reference):
    """Return the papers of a reference with links, or the whole text without papers."""
    plain = re.sub(r" ?\([^()]*\)", "", reference)
    found = list(CITATION.finditer(plain))
    ends = [match.start() for match in found[1:]] + [len(plain)]
    papers = []
    for match, end in zip(found, ends):
        rest = plain[match.end() : end]
        arxiv = ARXIV.search(rest)
        link = arxiv and f"[arXiv:{arxiv[1]}](https://arxiv.org/abs/{arxiv[1]})"
        papers.append(f"{authors(match[1])} {match[2]}, {link or title(rest)}")
    return "; ".join(papers) or reference


def grouped():
    """Return, for each package, its components and the names that each one has."""
    names, found = {}, {}
    for name, value in components().items():
        names.setdefault(id(value), []).append(name.replace("keras_transfer.", "kt."))
    seen = set()
    for name, value in components().items():
        if name.count(".") > 1 and id(value) not in seen:
            seen.add(id(value))
            row = (sorted(names[id(value)], key=len), value)
            found.setdefault(name.split(".")[1], []).append(row)
    rest = sorted(set(found) - set(ORDER))
    return {each: found[each] for each in (*ORDER, *rest)}


def row(names, component):
    """Return the line of the table for one component."""
    cells = [
        ", ".join(f"`{name}`" for name in names),
        first_sentence(component),
        short(reference_of(component)),
    ]
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def page():
    """Return the text of the file."""
    parts = [START]
    for package, rows in grouped().items():
        about = inspect.getdoc(sys.modules[f"keras_transfer.{package}"])
        table = "\n".join(row(*each) for each in rows)
        parts.append(f"## kt.{package}\n\n{about}\n")
        parts.append(f"| name | what it does | reference |\n| - | - | - |\n{table}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PATH.write_text(page())
    print(f"{PATH} has {page().count('| `kt.')} rows.")
