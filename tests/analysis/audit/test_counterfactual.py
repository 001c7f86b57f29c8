"""counterfactual: flips, shifts and tests by hand and against SciPy; bad input."""

import json

import keras
import keras_hub
import numpy as np
import pytest
from scipy import stats

import keras_transfer as kt
from keras_transfer.data.class_names import remember_class_names

PAIRS = [(f"he is {word}", f"she is {word}") for word in ("a", "bb", "ccc", "dddd")]
# p(1) of the first and of the second text of each pair.
SCORES = np.array([[0.6, 0.4], [0.9, 0.4], [0.2, 0.3], [0.8, 0.7]])
WHO = {"who": ["he", "she"]}


def scorer(scores=SCORES, pairs=PAIRS):
    """Return a function from the texts of pairs to their scores."""
    table = {
        text: score
        for pair, row in zip(pairs, scores, strict=True)
        for text, score in zip(pair, row, strict=True)
    }
    return lambda texts: np.array([table[text] for text in texts])


def audit(texts=PAIRS, model=None, **kwargs):
    return kt.analysis.counterfactual(model or scorer(), texts, **kwargs)


def only(found):
    (facts,) = found.to_dict()["comparisons"]
    return facts


def test_four_pairs_by_hand():
    facts = only(audit())
    assert facts["pairs"] == 4 and facts["flips"]["count"] == 2
    assert facts["flips"]["share"][0] == 0.5
    (row,) = facts["scores"]
    assert row["class"] == 1
    assert row["first"] == pytest.approx(0.625)
    assert row["second"] == pytest.approx(0.45)
    assert row["shift"][0] == pytest.approx(-0.175)
    assert (row["larger"], row["smaller"]) == (1, 3)
    # Twice, only the first text is positive: 2 * (1 / 2) ** 2.
    assert row["toward"] == {"only_first": 2, "only_second": 0, "mcnemar": 0.5}
    assert facts["largest"][0]["texts"] == ["he is bb", "she is bb"]
    assert facts["largest"][0]["scores"] == pytest.approx([0.9, 0.4])


def test_tests_equal_scipy():
    random = np.random.default_rng(0)
    pairs = [(f"he {i}", f"she {i}") for i in range(40)]
    scores = np.clip(random.normal([0.5, 0.55], 0.2, (40, 2)), 0, 1)
    (row,) = only(audit(pairs, scorer(scores, pairs)))["scores"]
    first, second = scores.T
    assert row["t_test"] == pytest.approx(stats.ttest_rel(second, first).pvalue)
    assert row["wilcoxon"] == pytest.approx(stats.wilcoxon(second, first).pvalue)
    ends = stats.ttest_rel(second, first).confidence_interval()
    assert row["shift"][1:] == pytest.approx([ends.low, ends.high])
    yes = first > 0.5, second > 0.5
    b, c = int((yes[0] & ~yes[1]).sum()), int((yes[1] & ~yes[0]).sum())
    assert row["toward"]["mcnemar"] == pytest.approx(stats.binomtest(b, b + c).pvalue)


def test_no_change_has_no_test():
    found = audit(model=scorer(np.full((4, 2), 0.7)))
    (row,) = only(found)["scores"]
    assert row["shift"] == [0.0, None, None]
    assert row["t_test"] is row["wilcoxon"] is row["toward"]["mcnemar"] is None
    assert found.flips == [0] and "No score changes." in str(found)
    noise = np.full((4, 2), 0.7) + np.array([0, 1e-8])
    assert audit(model=scorer(noise)).shifts == [0.0]
    one = audit(PAIRS[:1])
    assert only(one)["scores"][0]["t_test"] is None
    json.loads(one.to_json(), parse_constant=pytest.fail)


def test_templates_make_all_combinations():
    seen = []

    def model(texts):
        seen.extend(texts)
        return np.array([len(text) / 100 for text in texts])

    who = [
        {"subject": "he", "object": "him"},
        {"subject": "she", "object": "her"},
        {"subject": "they", "object": "them"},
    ]
    found = audit(
        ["The {job} said {who[subject]} left.", "I saw {who[object]} there."],
        model,
        substitutions={"job": ["nurse", "engineer"], "who": who},
        change="who",
    )
    rows = found.to_dict()["comparisons"]
    assert [row["names"] for row in rows] == [
        ["he/him", "she/her"],
        ["he/him", "they/them"],
        ["she/her", "they/them"],
    ]
    assert [row["pairs"] for row in rows] == [3, 3, 3]
    assert "The nurse said they left." in seen and "I saw her there." in seen
    assert len(seen) == len(set(seen)) == 9
    # "she" has one letter more than "he", "her" as many as "him".
    assert found.shifts[0] == pytest.approx(2 * 0.01 / 3)
    (slot,) = rows[0]["by_slot"]
    assert slot["slot"] == "job" and [v["pairs"] for v in slot["values"]] == [1, 1]
    assert [v["shift"] for v in slot["values"]] == pytest.approx([0.01, 0.01])
    assert "Mean shift by job, he/him → she/her" in str(found)


def test_several_classes():
    logits = {"he": [2.0, 1.0, 0.0], "she": [0.0, 1.0, 2.0]}

    def model(texts):
        return np.array([logits[text.split()[0]] for text in texts])

    found = audit(model=model)
    facts = only(found)
    assert found.to_dict()["read_as"] == "logits" and found.flips == [4]
    powers = np.exp([2, 1, 0]) / np.exp([2, 1, 0]).sum()
    assert facts["scores"][0]["first"] == pytest.approx(powers[0])
    assert [row["class"] for row in facts["scores"]] == [0, 1, 2]
    assert facts["scores"][1]["shift"] == [0.0, None, None]
    one = only(audit(model=model, positive=2))
    assert [row["class"] for row in one["scores"]] == [2]
    with pytest.raises(ValueError, match="positive=3 is not a class.*0, 1, 2"):
        audit(model=model, positive=3)


def test_numbers_have_no_flips(tmp_path):
    model = scorer(SCORES * 10 - 20)
    found = audit(model=model)
    assert found.flips is None and found.shifts == [pytest.approx(-1.75)]
    assert found.to_dict()["read_as"] == "numbers"
    assert "Flips" not in str(found) and "the output" in str(found)
    figure = found.plot(tmp_path / "a.png")
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {"a pair", "mean"}
    assert (tmp_path / "a.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="no classes. Leave out"):
        audit(model=model, positive=1)


def test_text_html_and_json(tmp_path):
    pairs = [("<script>he</script> |a|", "<script>she</script> |a|"), ("he", "she")]
    found = audit(pairs, scorer(SCORES[:2], pairs))
    for name in ("a.html", "a.md", "a.json", "a.txt"):
        found.save(tmp_path / name)
    html = (tmp_path / "a.html").read_text()
    assert "<script" not in html and "&lt;script&gt;she" in html
    assert html.count("data:image/svg+xml") == 1
    assert "\\|a\\|" in (tmp_path / "a.md").read_text()
    content = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert str(kt.analysis.CounterfactualAudit(content)) == str(found)
    assert "first → second" in repr(found)


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "he", "she", "is", "good", "bad"]


def preprocessor():
    tokenizer = keras_hub.tokenizers.BertTokenizer(WORDS)
    return keras_hub.models.BertTextClassifierPreprocessor(tokenizer, 8)


def backbone():
    return keras_hub.models.BertBackbone(10, 1, 2, 8, 16, max_sequence_length=8)


TEXTS = [("he is good", "she is good"), ("he is bad", "she is bad")]


@pytest.mark.slow
def test_models_that_read_strings():
    """A Task, a model of tokens with a preprocessor, and a function agree."""
    task = keras_hub.models.BertTextClassifier(
        backbone(), num_classes=2, preprocessor=preprocessor()
    )
    before = [np.array(each) for each in task.get_weights()]
    found = kt.analysis.counterfactual(task, TEXTS)
    for old, new in zip(before, task.get_weights(), strict=True):
        assert np.array_equal(old, new)
    tokens = keras.Model(task.input, task.output)
    for other, make in (
        (tokens, preprocessor()),
        (lambda x: np.asarray(tokens(x)), preprocessor()),
        (lambda texts: task.predict(texts, verbose=0), None),
    ):
        same = kt.analysis.counterfactual(other, TEXTS, preprocessor=make)
        assert same.shifts == pytest.approx(found.shifts, abs=1e-5)
        assert same.flips == found.flips
    with pytest.raises(ValueError, match="has its own preprocessor"):
        kt.analysis.counterfactual(task, TEXTS, preprocessor=preprocessor())
    with pytest.raises(ValueError, match="does not read strings. Pass preprocessor="):
        kt.analysis.counterfactual(tokens, TEXTS)
    remember_class_names(tokens, ["low", "high"])
    named = kt.analysis.counterfactual(
        tokens, TEXTS, preprocessor=preprocessor(), positive="high"
    )
    assert "p(high)" in str(named)


def test_the_compiled_loss_says_what_one_output_is():
    words = keras.layers.TextVectorization(vocabulary=WORDS[5:], output_mode="count")

    def model(loss):
        inputs = keras.Input((), dtype="string")
        made = keras.Model(inputs, keras.layers.Dense(1)(words(inputs)))
        made.set_weights([0.2 * np.arange(6.0)[:, None], np.array([0.1])])
        made.compile("sgd", loss)
        return made

    logits = model(keras.losses.BinaryCrossentropy(from_logits=True))
    found = kt.analysis.counterfactual(logits, TEXTS)
    assert found.to_dict()["read_as"] == "logits"
    # Weights: he 0.2, she 0.4, is 0.6, good 0.8, bad 1.0.
    expected = (
        1 / (1 + np.exp(-np.array([1.7, 1.9]))),
        1 / (1 + np.exp(-np.array([1.9, 2.1]))),
    )
    assert found.shifts == [pytest.approx((expected[1] - expected[0]).mean(), abs=1e-5)]
    numbers = kt.analysis.counterfactual(model("mse"), TEXTS)
    assert numbers.to_dict()["read_as"] == "numbers"
    assert numbers.shifts == [pytest.approx(0.2, abs=1e-5)]
    with pytest.raises(ValueError, match="which are not probabilities"):
        kt.analysis.counterfactual(model("binary_crossentropy"), TEXTS)


@pytest.mark.parametrize(
    "texts, arguments, words",
    [
        ([], {}, "There are no texts"),
        ([("he", "he")], {}, "Pair 0 has the same text twice"),
        (PAIRS, {"substitutions": WHO}, "`substitutions` has no effect on pairs"),
        (PAIRS, {"change": "who"}, "`change` has no effect on pairs"),
        ("{who} {job}", {"substitutions": WHO}, r"slots of the templates are \['job"),
        ("{who}", {"substitutions": WHO | {"a": ["b"]}}, "values for each slot, and"),
        (["{who}", "he"], {"substitutions": WHO}, "'he' has no slot {who}"),
        ("{who", {"substitutions": WHO}, "a brace that is not part of a slot"),
        ("{who.x}", {"substitutions": WHO}, "a brace that is not part of a slot"),
        ("{who[a]}", {"substitutions": WHO}, "does not fit its value 'he'"),
        ("{who}", {"substitutions": {"who": ["he"]}}, "has one value, so nothing"),
        ("{who}", {"substitutions": {"who": ["he", "he"]}}, "have one twice: he, he"),
        ("{who}", {"substitutions": {"who": "abcdef"}}, "The values of 'who' are"),
        ("{who}", {"substitutions": {"who": [*"abcdef"]}}, "15 comparisons"),
        ("{who}", {"substitutions": WHO, "change": "x"}, "change='x' is not a slot"),
    ],
)
def test_bad_texts_say_what_is_wrong(texts, arguments, words):
    with pytest.raises((TypeError, ValueError), match=words):
        audit(texts, **arguments)


def test_pairs_can_be_rows_of_an_array():
    assert audit(np.array(PAIRS)).to_dict() == audit(PAIRS).to_dict()


def test_bad_models_and_outputs():
    for nothing in (None, 5, b"he"):
        with pytest.raises(TypeError, match="The texts are .*a list of pairs"):
            audit(nothing)
    with pytest.raises(TypeError, match="Item 1 is 'he'. Pass a list of pairs"):
        audit([("he", "she"), "he"])
    with pytest.raises(TypeError, match="Item 0 is"):
        audit([("he", 1)])
    with pytest.raises(TypeError, match="substitutions=None is not a dict"):
        audit("{who}")
    with pytest.raises(TypeError, match="model is a str"):
        audit(model="bert")
    with pytest.raises(TypeError, match="preprocessor is a str"):
        audit(preprocessor="bert")
    with pytest.raises(ValueError, match="8 texts have the shape"):
        audit(model=lambda texts: np.zeros(3))
    with pytest.raises(ValueError, match="8 of 8 outputs are NaN"):
        audit(model=lambda texts: np.full(len(texts), np.nan))
    with pytest.raises(ValueError, match="21 classes, too many"):
        audit(model=lambda texts: np.zeros((len(texts), 21)))
    ambiguous = {"who": WHO["who"], "job": ["a", "b"]}
    with pytest.raises(ValueError, match="change=None is not a slot"):
        audit("{who} {job}", substitutions=ambiguous)
    lacks = {"who": [{"a": "he"}, {"b": "she"}]}
    with pytest.raises(ValueError, match="lacks the form 'a'"):
        audit("{who[a]}", substitutions=lacks)
