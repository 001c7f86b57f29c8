"""Write examples/TECHNIQUES.md: every public name, what it does, and its paper.

The table is made from the docstrings: the first sentence and the section `Reference:`.

    python -m tests.techniques
"""

import inspect
import re
import sys

from keras_transfer.adapters.techniques import techniques
from keras_transfer.saving.peft.files import techniques_of_peft
from keras_transfer.saving.peft.prompt_config import KINDS as PROMPTS
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
    "regularizers",
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

PEFT = """\
The types of Hugging Face PEFT. Other types and settings are refused by their names:

| type of PEFT | trains here as | `kt.load_adapter` | `kt.save_adapter` |
| - | - | - | - |"""

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


# Types of PEFT 0.21 -> the recipe that trains the same here, if there is one.
PEFT_TYPES = {
    "LORA": "LoRA",
    "LORA, use_rslora": "RsLoRA",
    "LORA, use_dora": "DoRA",
    "LOHA": "LoHa",
    "LOKR": "LoKr",
    "PROMPT_TUNING": "PromptTuning",
    "PREFIX_TUNING": "PrefixTuning",
    "IA3": "IA3",
    "VERA": "VeRA",
    "LN_TUNING": "NormTuning",
    "ADALORA, BOFT, OFT, P_TUNING and others": None,
}


def peft_table():
    """Return the table of PEFT's types: what trains here, and which files are read."""
    recipes = {kind.__name__: kind for kind in techniques().values()}
    files = {kind.__name__ for kind in techniques_of_peft()} | set(PROMPTS)
    lines = []
    for kind, name in PEFT_TYPES.items():
        if name is not None and name not in recipes:
            raise ValueError(f"There is no recipe {name}.")
        train = f"`kt.adapters.{name}`" if name else "no"
        file = "yes" if name in files else "no"
        lines.append(f"| {kind} | {train} | {file} | {file} |")
    if missing := sorted(files - set(PEFT_TYPES.values())):
        raise ValueError(f"The types of {missing} are not in the table.")
    return "\n".join(lines)


def page():
    """Return the text of the file."""
    parts = [START]
    for package, rows in grouped().items():
        about = inspect.getdoc(sys.modules[f"keras_transfer.{package}"])
        table = "\n".join(row(*each) for each in rows)
        parts.append(f"## kt.{package}\n\n{about}\n")
        parts.append(f"| name | what it does | reference |\n| - | - | - |\n{table}\n")
        if package == "adapters":
            parts.append(f"{PEFT}\n{peft_table()}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PATH.write_text(page())
    print(f"{PATH} has {page().count('| `kt.')} rows.")
