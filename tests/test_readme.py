"""What README.md says is so: its code runs, its files exist, its names resolve."""

import functools
import re
import sys

import pytest

import keras_transfer
from tests.public import blocks
from tests.public import components
from tests.public import ROOT

README = ROOT / "README.md"
TEXT = README.read_text() if README.is_file() else ""
LINES = (
    "pip install . && python examples/quickstart.py",
    'pip install -e ".[test]" && pytest',
)

# What a technique of the table takes or returns, and is told of there.
ASIDE = {
    "AdaptationRow",
    "ImportanceWeights",
    "LayerGroup",
    "LayerGroups",
    "LearningRateCurve",
    "MMDTest",
    "Phase",
    "Report",
    "Source",
    "Target",
}


def links(text):
    """Return the targets of links and images that are files of the repository."""
    found = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text)
    found = [first or second for first, second in found]
    return [each.partition("#")[0] for each in found if not re.match(r"\w+:|#", each)]


def files(text):
    """Return the files that the text names, in backticks or by a known folder."""
    folders = r"(?:examples|benchmarks|tests|keras_transfer|\.ci)/[\w./-]*\w"
    named = re.findall(rf"(?<![\w./-]){folders}", text)
    return named + re.findall(r"`([\w./-]+\.(?:py|md|cfg|toml|ipynb))`", text)


def names(text):
    """Return what the text names of keras_transfer, without the first part."""
    return re.findall(r"\b(?:kt|keras_transfer)\.([a-zA-Z]\w*(?:\.[a-zA-Z]\w*)*)", text)


def resolves(name):
    """Return whether keras_transfer has what `name` says."""
    try:
        functools.reduce(getattr, name.split("."), keras_transfer)
    except AttributeError:
        return False
    return True


@pytest.mark.parametrize("line", LINES)
def test_the_two_lines_are_there(line):
    assert line in map(str.strip, TEXT.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(blocks(TEXT))))
def test_code_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = compile(blocks(TEXT)[number], f"<README.md, block {number}>", "exec")
    exec(code, {"__name__": "readme"})


def test_there_is_code_to_run():
    assert blocks(TEXT)


def test_every_file_exists():
    missing = [name for name in links(TEXT) + files(TEXT) if not (ROOT / name).exists()]
    assert missing == []


def test_every_name_resolves():
    assert len(set(names(TEXT))) > 50
    assert [name for name in sorted(set(names(TEXT))) if not resolves(name)] == []
    assert not resolves("callbacks.Nothing")


def test_the_table_of_techniques_is_complete():
    rows = "\n".join(line for line in TEXT.splitlines() if line.startswith("| "))
    told = {
        id(functools.reduce(getattr, name.split("."), keras_transfer))
        for name in names(rows)
    }
    missing = [
        name
        for name, value in components().items()
        if id(value) not in told
        and name.rpartition(".")[2] not in ASIDE
        # A module of the table stands for what is in it.
        and id(sys.modules.get(name.rpartition(".")[0])) not in told
    ]
    assert missing == []


def test_the_search_finds_what_it_should():
    text = """
See [the guide](CONTRIBUTING.md#test) and [Keras](https://keras.io), `setup.cfg`,
`benchmarks/speed.py`, ![plot](plot.png), <img src="a/b.png">, [up](#top).

    python examples/quickstart.py  # uses kt.callbacks.GradualUnfreezing(model).
    bash .ci/run  # not https://x.org/tests/a.py
"""
    assert links(text) == ["CONTRIBUTING.md", "plot.png", "a/b.png"]
    assert files(text) == [
        "benchmarks/speed.py",
        "examples/quickstart.py",
        ".ci/run",
        "setup.cfg",
        "benchmarks/speed.py",
    ]
    assert names(text) == ["callbacks.GradualUnfreezing"]
