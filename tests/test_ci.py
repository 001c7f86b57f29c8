"""Every test is run by at least one line of .ci/run, and slow tests are recognized."""

import ast
import configparser
import itertools
import re
import shlex

from tests import tiers
from tests.public import ROOT

MARKS = ("slow", "peft", "serving", "export", "energy", "jax")


def default():
    """Return the expression for marks that a plain `pytest` uses."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    options = shlex.split(config["tool:pytest"]["addopts"])
    return options[options.index("-m") + 1]


def parts():
    """Return the expression for marks in each line of .ci/run that runs tests."""
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    lines = [line for line in lines if not line.startswith(("#", "step "))]
    runs = [line for line in lines if re.search(r"(^|&& )pytest\b", line)]
    found = [re.search(r"""pytest -m (?:"([^"]+)"|(\w+))""", line) for line in runs]
    return [match[1] or match[2] if match else default() for match in found]


def test_every_test_is_run_by_a_line_of_ci():
    chosen = parts()
    assert len(chosen) == 5 and "not slow" in chosen
    for values in itertools.product((False, True), repeat=len(MARKS)):
        marks = dict(zip(MARKS, values, strict=True))
        runs = [each for each in chosen if eval(each, {}, dict(marks))]
        assert runs, marks


def test_the_names_of_slow_tests_are_names_of_tests():
    assert len(set(tiers.KNOWN)) == len(tiers.KNOWN) > 0
    contracts = (ROOT / "tests" / "contracts").glob("*.py")
    inherited = "".join(path.read_text() for path in contracts)
    for name in tiers.KNOWN:
        file, *classes, test = name.partition("[")[0].split("::")
        text = (ROOT / file).read_text() + (inherited if classes else "")
        assert f"def {test}(" in text, name


HELPERS = """
from tests.contracts import fresh
from tests.contracts.fresh import load

def reload(path):
    return fresh.load(path)

by_helper = lambda: reload("model.keras")
in_a_loop = lambda: [fresh.load(each) for each in "ab"]
by_name = lambda: load("model.keras")
plain = lambda: len("model.keras")
"""


def test_functions_that_start_a_process_are_found():
    # Not written as code of this module, which would make this test slow as well.
    names = {"__name__": "helpers"}
    exec(HELPERS, names)
    for name in ("by_helper", "in_a_loop", "by_name"):
        assert tiers.reaches(names[name]), name
    assert not tiers.reaches(names["plain"])


def classes_of(path):
    """Yield each class of a file, and the names of its base classes."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            yield node, {ast.unparse(base) for base in node.bases}


def test_each_contract_with_costly_tests_has_a_representative():
    costly, shown = set(), set()
    for path in (ROOT / "tests" / "contracts").glob("*_contract.py"):
        costly |= {
            node.name
            for node, _ in classes_of(path)
            if "pytest.mark.costly" in ast.unparse(node)
        }
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node, bases in classes_of(path):
            if "representative = True" in map(ast.unparse, node.body):
                shown |= bases
    assert len(costly) > 4
    assert costly <= shown
