"""model_card: facts of the model, given texts, results, and safe Markdown and HTML."""

import json

import keras
import numpy as np
import pytest
import yaml

import keras_transfer as kt
from keras_transfer.analysis.report.section import Section
from keras_transfer.analysis.report.text import to_markdown
from tests import tiny

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def trained():
    """A model with LoRA, and the results of its training."""
    model = tiny.mlp()
    kt.adapters.LoRA(rank=2, targets="all-linear").attach(model, verbose=False)
    model.compile("sgd", "mse", jit_compile=False)
    x, y = np.ones((8, 6), "float32"), np.ones((8, 3), "float32")
    energy = kt.callbacks.Energy()
    history = model.fit(x, y, callbacks=[energy], verbose=0)
    return model, kt.report(model, history, data=(x, y)), energy.use


def headings(card):
    lines = card.to_markdown().splitlines()
    return [line[3:] for line in lines if line.startswith("## ")]


def test_a_card_with_everything(trained):
    model, report, use = trained
    card = kt.model_card(
        model,
        "Reviews",
        base_model="google-bert/bert-base-uncased",
        data=["SST-2, training part", "reviews of books"],
        results=[use, report],
        texts={"Limits": "English only.", "Intended use": "Tests.", "Thanks": "All."},
        metadata={"license": "mit", "language": ["en"]},
    )
    text = card.to_markdown()
    front, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(front) == {
        "library_name": "keras",
        "base_model": "google-bert/bert-base-uncased",
        "base_model_relation": "adapter",
        "license": "mit",
        "language": ["en"],
    }
    assert "SST-2, training part" in body and "reviews of books" in body
    assert "| adapter | default: LoRA, in use |" in body
    assert (
        f"| trainable parameters | {report.to_dict()['model']['trainable']:,} |" in body
    )
    found = headings(card)
    assert found[:2] == ["What it was made from", "Intended use"]
    assert found[-3:] == ["Limits", "Thanks", "What was not recorded"]
    assert found.count("Energy") == 1 and "Cost by phase" in found
    assert "Worst predictions" not in found  # raw data of the user
    assert "kt.compare" in body and "kt.report" not in body


def test_what_nobody_gave_is_not_recorded():
    card = kt.model_card(tiny.mlp(), "Nothing")
    text = str(card)
    for row in ("pretrained model", "trained on", "backbone"):
        (line,) = [line for line in text.splitlines() if line.startswith(row)]
        assert line.endswith("not recorded")
    assert text.count("not recorded") == 3 + 2 + 1  # also two texts, and the title
    assert "kt.report(" in text and "energy" in text
    assert yaml.safe_load(card.to_markdown().split("---\n")[1]) == {
        "library_name": "keras"
    }


def test_a_preset_is_named_but_not_linked():
    card = kt.model_card(tiny.mlp(), "Preset", base_model="bert_tiny_en_uncased")
    front = card.to_markdown().split("\n---\n")[0]
    assert "base_model" not in front and "bert_tiny_en_uncased" in str(card)
    card = kt.model_card(tiny.mlp(), "Hub", base_model="hf://google-bert/bert-tiny")
    assert '\nbase_model: "google-bert/bert-tiny"\n' in card.to_markdown()


def test_text_cannot_become_html_or_metadata(trained):
    model, report, _ = trained
    card = kt.model_card(
        model,
        EVIL,
        data=EVIL,
        results=[report],
        texts={EVIL: EVIL, "Limits": "a\n---\nlicense: other"},
        metadata={"license": f"mit\n---\n{EVIL}", "tags": ["a: b", "\u2028\x85---"]},
    )
    text = card.to_markdown()
    front, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert EVIL not in card.to_html() and EVIL not in body
    found = yaml.safe_load(front)
    assert found["license"] == f"mit\n---\n{EVIL}"
    assert found["tags"] == ["a: b", "\u2028\x85---"] and len(found) == 3


def test_lines_of_text_do_not_become_lists():
    lines = ["- a", "+ b", "1. c", "2) d", "---", "-", "1.5 percent", "-1 is low"]
    card = kt.model_card(tiny.mlp(), "Lists", texts={"Limits": "\n".join(lines)})
    found = card.to_markdown().split("## Limits\n\n")[1].split("\n\n##")[0]
    expected = [r"\- a", r"\+ b", r"1\. c", r"2\) d", r"\---", r"\-"]
    assert found.split("\n\n") == [*expected, *lines[-2:]]
    listed = to_markdown([Section("any", "Items", items=("1. a", "- b"))])
    assert listed.endswith("- 1\\. a\n- \\- b")


@pytest.mark.parametrize(
    "value",
    [
        "\x7f\x85\x9f\u2028\ufeff\ufffe",
        {"b\x80": [1e-05, 1e300, -2.5e-09, 0.25, 3, None, True, "1e-05"]},
        [{"task": {"type": "text"}}, [], {}, "\U0001f600"],
    ],
)
def test_metadata_come_back_from_yaml(value):
    given = {"a": value, "no": "text"}
    card = kt.model_card(tiny.mlp(), "Values", metadata=given)
    found = yaml.safe_load(card.to_markdown().split("---\n")[1])
    assert found == {"library_name": "keras"} | given


def test_the_file_has_no_examples(tmp_path):
    model = tiny.mlp()
    model.compile("sgd", "mse", jit_compile=False)
    x = np.full((4, 6), 4321.0, "float32")
    report = kt.report(model, data=(x, np.ones((4, 3), "float32")))
    assert "4321" in report.to_json()
    card = kt.model_card(model, "Private", results=[report])
    for shown in (card.to_json(), card.to_html(), card.to_markdown(), str(card)):
        assert "4321" not in shown
    assert "4321" in report.to_json()


def test_empty_text_is_not_recorded():
    empty = kt.model_card(tiny.mlp(), "Empty", data=" ", texts={"Limits": "\n "})
    assert str(empty) == str(kt.model_card(tiny.mlp(), "Empty"))


def test_json_brings_the_card_back(trained, tmp_path):
    model, report, use = trained
    card = kt.model_card(model, "Again", results=[report, use])
    card.save(tmp_path / "card.json")
    again = kt.analysis.ModelCard(json.loads((tmp_path / "card.json").read_text()))
    assert again.to_markdown() == card.to_markdown()
    assert "<table>" in again.to_html() and "<table>" in card.to_html()


def test_a_card_lies_beside_the_model(tmp_path):
    card = kt.model_card(tiny.mlp(), "Beside")
    with pytest.raises(FileNotFoundError, match="Save the model first"):
        card.save_beside(tmp_path / "1")
    (tmp_path / "1").mkdir()
    for _ in range(2):  # a card is replaced
        assert card.save_beside(tmp_path / "1") == tmp_path / "1" / "README.md"
    adapter = tmp_path / "books.safetensors"
    adapter.write_bytes(b"")
    assert card.save_beside(adapter) == tmp_path / "books.md"
    (tmp_path / "books.md").write_text("my notes")
    (tmp_path / "2" / "README.md").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="is a folder"):
        card.save_beside(tmp_path / "2")
    with pytest.raises(FileExistsError, match="not a card of this package"):
        card.save_beside(adapter)
    assert (tmp_path / "books.md").read_text() == "my notes"


@pytest.mark.slow
def test_a_saved_model_with_a_card_still_loads(tmp_path):
    import tensorflow as tf

    model = tiny.mlp()
    path = kt.export_serving(model, tmp_path / "animals")
    kt.model_card(model, "Served").save_beside(path)
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    assert set(serve.structured_outputs) == {"outputs"}


def test_bad_arguments_are_refused(trained):
    model, report, use = trained
    with pytest.raises(TypeError, match="model is a str"):
        kt.model_card("model", "Name")
    with pytest.raises(ValueError, match="not built"):
        kt.model_card(keras.Sequential([keras.layers.Dense(2)]), "Name")
    with pytest.raises(ValueError, match="not a name"):
        kt.model_card(model, " ")
    with pytest.raises(ValueError, match="two of the kind 'report'"):
        kt.model_card(model, "Name", results=[report, use, report])
    with pytest.raises(TypeError, match="results has a dict"):
        kt.model_card(model, "Name", results=[{"accuracy": 1.0}])
    for results in (None, "report", keras.callbacks.History()):
        with pytest.raises(TypeError, match="which is not a result"):
            kt.model_card(model, "Name", results=results)
    with pytest.raises(TypeError, match="data has .*ndarray"):
        kt.model_card(model, "Name", data=np.ones(3))
    with pytest.raises(TypeError, match="data has 3, a int"):
        kt.model_card(model, "Name", data=["text", 3])
    with pytest.raises(TypeError, match="texts='Limits' is not a dict"):
        kt.model_card(model, "Name", texts="Limits")
    with pytest.raises(ValueError, match="sets itself"):
        kt.model_card(model, "Name", metadata={"library_name": "torch"})
    with pytest.raises(ValueError, match="A key is a word"):
        kt.model_card(model, "Name", metadata={"a b": 1})
    with pytest.raises(ValueError, match="cannot be written"):
        kt.model_card(model, "Name", metadata={"loss": float("nan")})
