"""The report as text, Markdown, JSON and HTML: complete, escaped, self-contained."""

import base64
import functools
import html.parser
import json
import re
import xml.etree.ElementTree

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.analysis.report.plots import plots
from keras_transfer.analysis.report.shown_examples import described
from keras_transfer.analysis.report.shown_examples import picture
from tests import tiny

EVIL = "<script>alert('$x_1$')</script> & \"|`*\x1b[31m\u202e\ud800"
VOID = {"meta", "img", "br", "link"}


class Page(html.parser.HTMLParser):
    """Parser that checks the order of tags, and keeps tags, attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def pictures(page):
    """Return `(type, decoded source)` for each image of a page."""
    sources = [value for name, value in page.attributes if name == "src"]
    found = [
        re.fullmatch(r"data:image/([a-z+]+);base64,(.*)", each) for each in sources
    ]
    return [(each[1], base64.b64decode(each[2])) for each in found]


@functools.cache
def full(count=12):
    """Return a report with all sections, and with harmful names."""
    model = tiny.convnet()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    kt.analysis.record_start(model)
    model.layers[-1].bias.assign([1.0, 2.0, 3.0])
    names = kt.layer_groups(model).names
    patterns = [(EVIL, names[0]), *((name, name) for name in names[1:])]
    history = {
        "loss": [3.0, 2.0, 1.0],
        "val_loss": [3.0, 2.5, 2.0],
        EVIL: [0.1, 0.2, 0.3],
        "phase": [0, 0, 1],
        "seconds": [1.0, 1.0, 2.0],
        "trainable_parameters": [21, 21, 171],
    }
    generator = np.random.default_rng(0)
    x = generator.uniform(size=(count, 8, 8, 3)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, np.arange(count) % 3)).batch(5)
    data.class_names = ["ape", EVIL, "東京"]
    return kt.report(kt.layer_groups(model, patterns), history, data=data)


def test_the_page_is_well_formed_and_self_contained():
    text = full().to_html()
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert page.tags.count("html") == page.tags.count("body") == 1
    assert not {"script", "link", "iframe", "object", "a"} & set(page.tags)
    assert "http" not in text and "url(" not in text and "@import" not in text
    names = {name for name, _ in page.attributes}
    assert not [name for name in names if name.startswith("on")]
    assert {"charset", "src", "alt"} <= names


def test_names_are_escaped():
    report = full()
    page = Page(report.to_html())
    assert "<script>alert('$x_1$')</script> & \"|`*" in "".join(page.words)
    markdown = report.to_markdown()
    assert "<script" not in markdown and "&lt;script&gt;" in markdown
    for text in (report.to_html(), markdown, str(report)):
        assert not set("\x1b\u202e\ud800") & set(text)
    assert EVIL in json.loads(report.to_json())["evaluation"]["classes"][1]["name"]


def test_all_plots_are_drawn_as_valid_xml():
    page = Page(full().to_html())
    found = pictures(page)
    kinds = [kind for kind, _ in found]
    assert kinds.count("svg+xml") == 3
    assert kinds.count("png") > 0
    for kind, content in found:
        if kind == "png":
            assert content.startswith(b"\x89PNG")
        else:
            root = xml.etree.ElementTree.fromstring(content)
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            assert not list(root.iter("{http://www.w3.org/2000/svg}script"))
    alts = [value for name, value in page.attributes if name == "alt"]
    assert len(alts) == len(found) and all(alts)


def test_a_report_without_data_has_no_plots():
    report = kt.report(tiny.mlp())
    assert pictures(Page(report.to_html())) == []
    assert plots(report.to_dict()) == {}


def test_plots_do_not_change_matplotlib():
    import matplotlib
    from matplotlib import pyplot

    with matplotlib.rc_context({"font.size": 33, "text.parse_math": True}):
        before = dict(matplotlib.rcParams)
        figures = pyplot.get_fignums()
        full().to_html()
        assert dict(matplotlib.rcParams) == before
        assert pyplot.get_fignums() == figures


def test_missing_values_are_not_shown_as_zero():
    model = tiny.convnet()
    report = kt.report(model)
    for text in (str(report), report.to_markdown(), report.to_html()):
        assert "not recorded" in text
    rows = [each for each in str(report).splitlines() if each.startswith("conv")]
    assert rows[0].split()[1:3] == ["112", "112"]
    assert rows[0].count("not recorded") == 2
    found = json.loads(report.to_json())
    for key in ("start", "phases", "curves", "evaluation", "optimizer"):
        assert found[key] is None
    reasons = found["not_recorded"]
    assert {"groups.moved", "phases", "evaluation", "optimizer"} == set(reasons)
    assert all(reasons.values())
    for reason in reasons.values():
        assert reason in str(report)


def test_json_round_trip():
    report = full()
    content = json.loads(report.to_json())
    assert content == report.to_dict()
    assert kt.analysis.Report(content).to_markdown() == report.to_markdown()


def test_changing_the_dict_does_not_change_the_report():
    report = kt.report(tiny.mlp())
    report.to_dict()["groups"].clear()
    assert len(report.to_dict()["groups"]) == 3


def test_columns_of_the_text_are_aligned():
    lines = str(full()).splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("group "))
    table = lines[first : first + 9]
    assert len({len(line) for line in table}) == 1
    assert table[1] == table[6] == "-" * len(table[0])
    assert table[-1].startswith("total")


def test_a_notebook_shows_the_html_body():
    text = full()._repr_html_()
    assert text.startswith("<style>") or text.startswith('<div class="kt-report">')
    page = Page(text)
    assert not {"html", "head", "body"} & set(page.tags)
    assert "svg" in text


@pytest.mark.parametrize("suffix", [".html", ".md", ".json", ".txt", ".HTML"])
def test_the_suffix_decides_the_format(suffix, tmp_path):
    report = full()
    path = tmp_path / f"report{suffix}"
    path.write_text("old")
    report.save(path)
    text = path.read_text(encoding="utf-8")
    expected = {
        ".html": report.to_html(),
        ".md": report.to_markdown(),
        ".json": report.to_json(),
        ".txt": str(report),
    }
    assert text.strip() == expected[suffix.lower()].strip()
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_path_may_be_a_string(tmp_path):
    kt.report(tiny.mlp()).save(str(tmp_path / "report.txt"))
    assert (tmp_path / "report.txt").is_file()


def test_bad_paths_raise(tmp_path):
    report = kt.report(tiny.mlp())
    with pytest.raises(ValueError, match="suffix must be one of"):
        report.save(tmp_path / "report.pdf")
    with pytest.raises(ValueError, match="does not exist. Make it first"):
        report.save(tmp_path / "absent" / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "report.txt"
    path.write_text("old")

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        kt.report(tiny.mlp()).save(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# Examples.


def test_examples_as_text():
    assert described(np.array(b"caf\xc3\xa9")) == "café"
    assert described(np.array("a\nb")) == "a\nb"
    assert described(np.array([101, 14857])) == "101, 14857"
    assert described((np.array(b"one"), np.array(b"two"))) == "one / two"
    assert described(np.zeros((8, 8, 3))) == "picture of 8 x 8 x 3"
    assert described(np.arange(9.0)) == "0, 1, 2, 3, 4, 5, ... (9)"
    assert described(np.array(3)) == "3"
    tokens = {"ids": np.array([1, 2]), "mask": np.array([True, False])}
    assert described(tokens) == "ids: 1, 2; mask: 1, 0"


@pytest.mark.parametrize(
    "pixels, expected",
    [
        (np.full((5, 5, 3), 51, "uint8"), 51),
        (np.full((5, 5, 3), 0.2, "float32"), 51),
        (np.full((5, 5, 1), 1.0, "float32"), 255),
        (np.full((5, 5, 3), np.nan, "float32"), 0),
        (np.full((5, 5, 3), 300.0, "float32"), 0),
    ],
)
def test_examples_as_images(pixels, expected):
    from matplotlib.image import imread

    assert read(imread, pixels).shape[:2] == (5, 5)
    values = np.rint(read(imread, pixels)[..., :3] * 255)
    assert np.unique(values).tolist() == [expected]


def test_images_are_rescaled_and_downsampled_if_needed():
    from matplotlib.image import imread

    ramp = np.linspace(-1, 1, 600 * 400 * 3).reshape(600, 400, 3)
    values = read(imread, ramp)
    assert values.shape[:2] == (200, 134)
    assert values[..., :3].min() == 0.0 and values[..., :3].max() > 0.99
    assert picture(np.zeros(9)) is None
    assert picture({"a": np.zeros((8, 8, 3)), "b": np.zeros(2)}) is None


def read(imread, pixels):
    import io

    return imread(io.BytesIO(base64.b64decode(picture(pixels))), format="png")
