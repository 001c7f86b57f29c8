"""Each example runs in its short form, and its docstring says what to expect."""

import ast
import re

import pytest

from tests import forked
from tests.public import ROOT

EXAMPLES = {path.name: path for path in sorted((ROOT / "examples").glob("*.py"))}
HEADER = {
    "what is learned": r"Learned?:",
    "which data": r"Data:",
    "how many minutes": r"Time:[^.]*\d[\d.]* (minutes?|seconds?)",
    "the expected number": r"Expect[^.]*\d",
}


def test_the_quickstart_exists():
    assert "quickstart.py" in EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_first_lines_say_what_to_expect(name):
    source = EXAMPLES[name].read_text()
    header = ast.get_docstring(ast.parse(source)) or ""
    lacks = [what for what, words in HEADER.items() if not re.search(words, header)]
    assert lacks == []
    assert len(source.splitlines()) <= 150


# For each example that needs an extra: a package of the extra, and its name.
NEEDS = {"serving_client.py": ("tensorflow_serving", "serving")}
ELSEWHERE = {"quickstart.py"}  # test_distributions.py runs it as a user does
MARKED = [
    pytest.param(name, marks=getattr(pytest.mark, NEEDS[name][1]))
    if name in NEEDS
    else name
    for name in sorted(EXAMPLES.keys() - ELSEWHERE)
]


@pytest.mark.parametrize("name", MARKED)
def test_runs_in_its_short_form(name, tmp_path):
    if name in NEEDS:
        package, extra = NEEDS[name]
        pytest.importorskip(package, reason=f"needs the extra {extra!r}")
    done = forked.run(EXAMPLES[name], "--smoke", cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    lines = done.stdout.splitlines()
    # The output ends with a table, which has several columns and a number.
    rows = [line for line in lines if len(re.split(r"\s{2,}|[│┃|]", line.strip())) > 2]
    assert lines[-1].strip()
    assert len(rows) > 2 and re.search(r"\d", rows[-1]), done.stdout[-2000:]
