import json

import numpy as np
import pytest

import keras_transfer as kt
from tests.monitoring import references

SHIFTED = "Shift: shift"


@pytest.fixture(scope="module")
def report():
    rng = np.random.default_rng(0)
    names = ("cat", references.SCRIPT, "</svg><script>alert(2)</script>")
    watch = kt.ShiftMonitor(references.reference(rng, names=names))
    scores, x, _ = references.outputs(rng, 200, shares=(1, 8, 1))
    watch.update(outputs=scores, features=x)
    return watch.report()


def test_text_and_markdown_have_all_tables(report):
    assert report.shifted
    for text in (str(report), report.to_markdown()):
        for words in (SHIFTED, "What differs most", "Class shares", "look 1"):
            assert words in text
    assert repr(report) == "<ShiftReport, shift. Use print() to show it>"


def test_class_names_stay_text_in_html(report):
    page = report.to_html()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count("data:image/svg+xml;base64,") == 2
    assert "http" not in page.replace("http-equiv", "")


def test_class_names_stay_text_in_the_plots(report):
    import base64
    import re

    page = report.to_html()
    for data in re.findall(r"svg\+xml;base64,([^\"]+)", page):
        assert "<script" not in base64.b64decode(data).decode()


def test_json_is_strict_and_complete(report, tmp_path):
    report.save(tmp_path / "report.json")

    def refuse(name):
        raise AssertionError(name)

    text = (tmp_path / "report.json").read_text()
    found = json.loads(text, parse_constant=refuse)
    assert found == report.to_dict()
    assert kt.monitoring.ShiftReport(found).to_html() == report.to_html()


def test_the_tables_are_copies(report):
    report.table[0]["shifted"] = None
    report.class_shares[0]["class"] = "other"
    assert report.shifted
    assert report.class_shares[0]["class"] == "cat"


def test_the_suffix_decides_the_format(report, tmp_path):
    for suffix in (".html", ".md", ".txt"):
        report.save(tmp_path / f"report{suffix}")
    assert SHIFTED in (tmp_path / "report.txt").read_text()
    with pytest.raises(ValueError, match="shift report cannot be saved"):
        report.save(tmp_path / "report.exe")


def test_many_classes_are_shown_in_part():
    shares = [
        {"class": str(i), "reference": 0.02, "predicted": 0.02, "bbse": None, "em": 0.0}
        for i in range(50)
    ]
    content = {"rows": 80, "look": 1, "alpha": 0.05, "level": 0.03, "notes": []}
    curve = {"name": "x", "reference": [0.0, 1.0], "window": [0.5, 1.0]}
    content |= {"tests": [], "columns": [], "shares": shares}
    report = kt.monitoring.ShiftReport(content | {"curve": curve, "model": "pets"})
    assert "The 30 classes of 50" in str(report)
    assert not report.shifted
    assert report.to_html()
