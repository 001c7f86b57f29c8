"""What .ci/run runs: no test is left out by all of its parts."""

import configparser
import itertools
import re
import shlex

from tests import tiers
from tests.contracts import fresh
from tests.public import ROOT

MARKS = ("slow", "peft", "serving", "export")


def default():
    """Return the marks that a plain `pytest` chooses."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    options = shlex.split(config["tool:pytest"]["addopts"])
    return options[options.index("-m") + 1]


def parts():
    """Return the marks that each line of .ci/run chooses which runs tests."""
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    lines = [line for line in lines if not line.startswith(("#", "step "))]
    runs = [line for line in lines if re.search(r"(^|&& )pytest\b", line)]
    found = [re.search(r"""pytest -m (?:"([^"]+)"|(\w+))""", line) for line in runs]
    return [match[1] or match[2] if match else default() for match in found]


def test_every_test_is_run_by_some_part():
    chosen = parts()
    assert len(chosen) == 4 and "not slow" in chosen
    for held in itertools.product((False, True), repeat=len(MARKS)):
        marks = dict(zip(MARKS, held, strict=True))
        runs = [each for each in chosen if eval(each, {}, dict(marks))]
        assert runs, marks


def reload(path):
    return fresh.load(path)


def test_what_starts_a_process_is_slow():
    assert tiers.reaches(lambda: reload("model.keras"))
    assert tiers.reaches(lambda: [fresh.load(each) for each in "ab"])
    assert not tiers.reaches(lambda: parts())
