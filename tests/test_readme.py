"""In README.md and other pages, code runs, and files, links and names exist."""

import functools
import json
import re

import pytest
import tensorflow as tf

import keras_transfer
from tests.public import blocks
from tests.public import ROOT

PAGES = {
    name: (ROOT / name).read_text()
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "benchmarks/README.md",
        "examples/TECHNIQUES.md",
    )
}
TEXT = PAGES["README.md"]
LINES = (
    "pip install . && python examples/quickstart.py",
    'pip install -e ".[test]" && pytest',
)


def sections(text):
    """Return a dict from headings `## ...` to their python blocks, if there are any."""
    parts = re.split(r"^## (.+)$", text, flags=re.M)
    found = dict(zip(parts[1::2], map(blocks, parts[2::2]), strict=True))
    return {heading: code for heading, code in found.items() if code}


def links(text):
    """Return the targets of links and images that are files in the repository."""
    found = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text)
    found = [first or second for first, second in found]
    return [each for each in found if not re.match(r"\w+:|#", each)]


def anchors(text):
    """Return the anchors of all headings, in the form that GitHub uses after `#`."""
    found = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return [re.sub(r"[^\w\- ]", "", each).lower().replace(" ", "-") for each in found]


def is_broken(link, page):
    """Return whether a link in a page has a file or a heading that does not exist."""
    name, _, anchor = link.partition("#")
    path = (ROOT / page).parent / name
    if not path.exists():
        return True
    return bool(anchor) and anchor not in anchors(path.read_text())


def files(text):
    """Return the files in a text, which are in backticks or in a known folder."""
    folders = r"(?:examples|benchmarks|tests|keras_transfer|\.ci)/[\w./-]*\w"
    named = re.findall(rf"(?<![\w./-]){folders}", text)
    return named + re.findall(r"`([\w./-]+\.(?:py|md|cfg|toml|ipynb))`", text)


def names(text):
    """Return the names of keras_transfer in a text, without the first part."""
    return re.findall(r"\b(?:kt|keras_transfer)\.([a-zA-Z]\w*(?:\.[a-zA-Z]\w*)*)", text)


def resolves(name):
    """Return whether `name` exists in keras_transfer."""
    try:
        functools.reduce(getattr, name.split("."), keras_transfer)
    except AttributeError:
        return False
    return True


def run(code, name):
    """Run a block like code that is pasted into a new Python session."""
    exec(compile(code, f"<README.md, {name}>", "exec"), {"__name__": "readme"})


# Fine-tuning takes long, and test_distributions.py runs all blocks. A test of its own
# runs the blocks of "Serve".
RUN = [name for name in sections(TEXT) if "tune" not in name and name != "Serve"]


@pytest.mark.parametrize("line", LINES)
def test_the_readme_has_the_commands(line):
    assert line in map(str.strip, TEXT.splitlines())


def test_the_readme_is_short():
    assert len(TEXT.splitlines()) <= 150


def test_all_code_is_below_a_heading():
    assert len(sections(TEXT)) > 3
    assert sum(map(len, sections(TEXT).values())) == len(blocks(TEXT))


@pytest.mark.parametrize("heading", RUN)
def test_code_runs(heading, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # A block can read files of the block before, but does not share its variables.
    for code in sections(TEXT)[heading]:
        run(code, heading)


def test_the_clients_get_an_answer_from_the_exported_model(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    export, client = sections(TEXT)["Serve"]
    run(export, "export")
    capsys.readouterr()
    assert "keras" not in client
    run(client, "client")
    assert capsys.readouterr().out in ("[b'cat']\n", "[b'dog']\n")
    body, name = re.search(
        r"curl -d '(.+)' http://\S+/models/(\w+):predict", TEXT
    ).groups()
    instances = tf.constant(json.loads(body)["instances"], tf.float32)
    served = tf.saved_model.load(str(tmp_path / name / "1"))
    assert served.signatures["serving_default"](inputs=instances)["label"].shape == (1,)
    assert f'"$PWD/{name}:/models/{name}" -e MODEL_NAME={name} ' in TEXT


@pytest.mark.parametrize("page", PAGES)
def test_every_link_has_a_target(page):
    found = [link for link in links(PAGES[page]) if is_broken(link, page)]
    assert found == []


@pytest.mark.parametrize("page", ["README.md", "benchmarks/README.md"])
def test_every_file_exists(page):
    missing = [name for name in files(PAGES[page]) if not (ROOT / name).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_every_name_resolves(page):
    assert [name for name in names(PAGES[page]) if not resolves(name)] == []


def test_the_readme_contains_names():
    assert len(set(names(TEXT))) > 20
    assert not resolves("callbacks.Nothing")


def test_links_files_names_and_anchors_are_found():
    text = """
See [the guide](CONTRIBUTING.md#test) and [Keras](https://keras.io), `setup.cfg`,
`benchmarks/speed.py`, ![plot](plot.png), <img src="a/b.png">, [up](#top).

    python examples/quickstart.py  # uses kt.callbacks.GradualUnfreezing(model).
    bash .ci/run  # not https://x.org/tests/a.py
"""
    assert links(text) == ["CONTRIBUTING.md#test", "plot.png", "a/b.png"]
    assert files(text) == [
        "benchmarks/speed.py",
        "examples/quickstart.py",
        ".ci/run",
        "setup.cfg",
        "benchmarks/speed.py",
    ]
    assert names(text) == ["callbacks.GradualUnfreezing"]
    assert anchors("## Why not `plain` Keras?\n### [1.0] - x") == [
        "why-not-plain-keras",
        "10---x",
    ]
    assert not is_broken("../README.md#limits", "benchmarks/README.md")
    assert is_broken("../README.md#nothing", "benchmarks/README.md")
    assert is_broken("README.txt", "README.md")
