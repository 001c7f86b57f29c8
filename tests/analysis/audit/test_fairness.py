"""fairness: measures by group by hand and against other libraries, and bad input."""

import json
import sys

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn import metrics

import keras_transfer as kt

# Eight people: the label, the logit, and the group.
LABELS = np.array([1, 1, 0, 0, 1, 0, 0, 0])
LOGITS = np.array([1, -1, 1, -1, 1, -1, -1, -1], "float32")[:, None]
SEX = ["men"] * 4 + ["women"] * 4
RNG = np.random.default_rng(0)


def same(size=1, loss=None):
    """Return a model whose outputs are its inputs."""
    model = keras.Sequential([keras.Input((size,)), keras.layers.Dense(size)])
    model.set_weights([np.eye(size), np.zeros(size)])
    model.compile("sgd", loss or keras.losses.BinaryCrossentropy(from_logits=True))
    return model


def audit(x=LOGITS, y=LABELS, groups=SEX, model=None, smallest=2, **kwargs):
    model = same(np.shape(x)[1]) if model is None else model
    return kt.analysis.fairness(model, (x, y), groups, smallest=smallest, **kwargs)


def several(size=3, count=400):
    """Return logits, labels and a model of several classes."""
    logits = RNG.normal(size=(count, size)).astype("float32")
    labels = (logits + RNG.normal(size=logits.shape)).argmax(1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return logits, labels, same(size, loss)


def of(content, name):
    return next(each for each in content["measures"] if each["measure"] == name)


def test_eight_rows_by_hand():
    found = audit()
    by_hand = {
        "label_rate": (2 / 4, 1 / 4),
        "positive_rate": (2 / 4, 1 / 4),
        "accuracy": (2 / 4, 4 / 4),
        "false_positive_rate": (1 / 2, 0 / 3),
        "false_negative_rate": (1 / 2, 0 / 1),
        "precision": (1 / 2, 1 / 1),
    }
    for name, (men, women) in by_hand.items():
        assert found.values(name, "group") == {"men": men, "women": women}
        assert found.difference(name, "group")[0] == abs(men - women)
    content = found.to_dict()["attributes"][0]
    largest = of(content, "positive_rate")["model"]["largest"]
    assert (largest["highest"], largest["lowest"]) == ("men", "women")
    assert largest["ratio"][0] == 0.5
    # All four women are right, in each draw too, so there is no interval.
    assert of(content, "accuracy")["model"]["values"][1] == [1.0, None, None]
    # Men have 2 of 3 positive labels, and 2 of 3 positive predictions.
    (row,) = content["shares"]
    assert [each[0] for each in row["labels"]] == pytest.approx([2 / 3, 1 / 3])
    assert [each[0] for each in row["model"]] == pytest.approx([2 / 3, 1 / 3])
    assert content["amplification"]["labels"]["model"][0] == 0
    assert content["amplification"]["training"] is None


def test_a_group_without_positives_has_no_false_negative_rate():
    found = audit(y=np.array([1, 1, 0, 0, 0, 0, 0, 0]))
    assert found.values("false_negative_rate", "group") == {"men": 0.5, "women": None}
    assert found.difference("false_negative_rate", "group") is None
    assert "not defined" in str(found)
    json.loads(found.to_json(), parse_constant=pytest.fail)


def test_several_classes_equal_scikit_learn():
    x, y, model = several()
    race = RNG.choice(["a", "b", "c"], 400)
    found = audit(x, y, {"race": race}, model)
    predicted = x.argmax(1)
    for group in "abc":
        rows = race == group
        true, guess = y[rows], predicted[rows]
        assert found.values("accuracy", "race")[group] == np.mean(true == guess)
        table = metrics.multilabel_confusion_matrix(true, guess, labels=range(3))
        for number, ((tn, fp), (fn, tp)) in enumerate(table):
            expected = {
                "label_rate": (fn + tp) / len(true),
                "positive_rate": (fp + tp) / len(true),
                "false_positive_rate": fp / (fp + tn),
                "false_negative_rate": fn / (fn + tp),
                "precision": tp / (tp + fp),
            }
            for name, value in expected.items():
                got = found.values(name, "race", positive=number)[group]
                assert got == pytest.approx(value), name


def test_differences_and_ratios_equal_fairlearn():
    from fairlearn import metrics as fairlearn

    count = 500
    groups = RNG.choice(["a", "b", "c", "d"], count)
    x = RNG.normal(size=(count, 1)).astype("float32")
    y = (x[:, 0] + RNG.normal(size=count) > 0).astype(int)
    found = audit(x, y, groups)
    predicted = (x[:, 0] > 0).astype(int)
    arguments = {"y_true": y, "y_pred": predicted, "sensitive_features": groups}
    difference = found.difference("positive_rate", "group")[0]
    parity = fairlearn.demographic_parity_difference(**arguments)
    assert difference == pytest.approx(parity)
    content = found.to_dict()["attributes"][0]
    ratio = of(content, "positive_rate")["model"]["largest"]["ratio"][0]
    parity = fairlearn.demographic_parity_ratio(**arguments)
    assert ratio == pytest.approx(parity)
    odds = max(
        found.difference(name, "group")[0]
        for name in ("false_positive_rate", "false_negative_rate")
    )
    assert odds == pytest.approx(fairlearn.equalized_odds_difference(**arguments))


def test_regression_equals_numpy():
    x = RNG.normal(size=(300, 1)).astype("float32")
    y = x[:, 0] + RNG.normal(size=300)
    groups = np.where(RNG.random(300) < 0.4, "a", "b")
    found = audit(x, y, groups, same(loss="mse"))
    error = (x[:, 0] - y)[groups == "a"]
    expected = {
        "mean_label": y[groups == "a"].mean(),
        "mean_prediction": x[groups == "a"].mean(),
        "mean_error": error.mean(),
        "mean_absolute_error": np.abs(error).mean(),
        "root_mean_squared_error": np.sqrt((error**2).mean()),
    }
    for name, value in expected.items():
        assert found.values(name, "group")["a"] == pytest.approx(value)
    content = found.to_dict()["attributes"][0]
    assert content["shares"] is None
    largest = of(content, "mean_error")["model"]["largest"]
    assert largest["ratio"] is None and largest["difference"][1] is not None
    assert "mean absolute error" in str(found)
    found.plot()


def test_intersections_and_small_groups():
    groups = pd.DataFrame({"sex": ["f", "m"] * 40, "age": ["old"] * 4 + ["young"] * 76})
    x, y = RNG.normal(size=(80, 1)).astype("float32"), np.arange(80) // 2 % 2
    found = audit(x, y, groups, smallest=30)
    sex, age, both = found.to_dict()["attributes"]
    assert both["name"] == "sex × age" and both["intersection_of"] == ["sex", "age"]
    sizes = {each["name"]: each["examples"] for each in both["groups"]}
    expected = {"f × old": 2, "f × young": 38, "m × old": 2, "m × young": 38}
    assert sizes == expected
    assert [each["small"] for each in both["groups"]] == [True, False, True, False]
    largest = of(both, "positive_rate")["model"]["largest"]
    names = {largest["highest"], largest["lowest"]}
    assert names == {"f × young", "m × young"}
    values = found.values("positive_rate", "sex × age")
    assert values["f × old"] == np.mean(x[:4:2] > 0)
    # Only one age is large enough, so there is nothing to compare.
    assert found.difference("positive_rate", "age") is None
    text = str(found)
    assert "f × old *" in text and "*: fewer than 30 examples" in text
    assert "age: fewer than two groups are large enough" in text


def test_at_most_ten_findings_begin_the_text():
    x, y, model = several(12)
    found = audit(x, y, RNG.choice(["a", "b"], 400), model)
    assert str(found).count("\n- group: predicted as") == 10
    assert "The 10 largest of 12 differences are listed." in str(found)


def test_the_positive_class_is_a_number_or_a_name():
    x, y, model = several()
    groups = RNG.choice(["a", "b"], 400)
    found = audit(x, y, groups, model, positive=2)
    assert found.to_dict()["positive"] == [2]
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
    data.class_names = ["low", "mid", "high"]
    named = kt.analysis.fairness(model, data, groups, positive="high")
    assert named.values("positive_rate", "group") == found.values(
        "positive_rate", "group"
    )
    assert "predicted as 'high'" in str(named)
    with pytest.raises(ValueError, match="positive='other' is not a class.*low"):
        kt.analysis.fairness(model, data, groups, positive="other")
    for wrong in (3, True, 1.0):
        with pytest.raises(ValueError, match="is not a class"):
            audit(x, y, groups, model, positive=wrong)


def test_kinds_of_data_give_the_same_audit():
    class Batches(keras.utils.PyDataset):
        num_batches = 2

        def __getitem__(self, place):
            part = slice(4 * place, 4 * place + 4)
            return LOGITS[part], LABELS[part]

    expected = audit().to_json()
    dataset = tf.data.Dataset.from_tensor_slices((LOGITS, LABELS)).batch(3)
    one_hot = np.eye(2)[LABELS]
    softmax = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    softmax.set_weights([np.array([[0.0, 1.0]]), np.zeros(2)])
    for data, model in (
        (dataset, same()),
        (Batches(), same()),
        ((LOGITS, one_hot), softmax),
    ):
        found = kt.analysis.fairness(model, data, np.array(SEX), smallest=2).to_dict()
        assert found["attributes"] == json.loads(expected)["attributes"]


def test_text_html_json_and_plots(tmp_path):
    groups = {"<script>x": ["<b>men"] * 4 + ["wo|men"] * 4, "age": ["1", "2"] * 4}
    found = audit(groups=groups, baseline=same())
    for name in ("a.html", "a.md", "a.json", "a.txt"):
        found.save(tmp_path / name)
    html = (tmp_path / "a.html").read_text()
    assert "<script" not in html and "<b>" not in html
    assert "&lt;script&gt;x" in html and html.count("data:image/svg+xml") == 3
    assert "wo\\|men" in (tmp_path / "a.md").read_text()
    content = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert content == found.to_dict()
    again = kt.analysis.FairnessAudit(content)
    assert str(again) == str(found) and "FairnessAudit by" in repr(again)
    found.plot(tmp_path / "a.png", attribute="age")
    assert (tmp_path / "a.png").stat().st_size > 1000
    text = str(found).lower()
    assert "unbiased" not in text and "fair" not in text
    with pytest.raises(ValueError, match="attribute='race' must be one of"):
        found.plot(attribute="race")
    with pytest.raises(ValueError, match="measure='recall' must be one of"):
        found.values("recall", "age")
    with pytest.raises(ValueError, match="no 'label_rate' of the baseline"):
        found.values("label_rate", "age", of="baseline")


def test_the_model_does_not_change():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dropout(0.5)])
    model.add(keras.layers.BatchNormalization())
    model.add(keras.layers.Dense(1, activation="sigmoid"))
    model.compile("adam", "binary_crossentropy")
    before = [np.array(each) for each in model.get_weights()]
    audit(model=model)
    for old, new in zip(before, model.get_weights(), strict=True):
        assert np.array_equal(old, new)


def test_fairlearn_is_named_if_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "fairlearn.metrics", None)
    with pytest.raises(ImportError, match=r"keras_transfer\[audit\]"):
        audit()


NAN = LOGITS.copy()
NAN[2] = np.nan


@pytest.mark.parametrize(
    "change, words",
    [
        ({"groups": SEX[:7]}, "`groups` has 7 values, but there are 8 examples"),
        ({"groups": [*SEX[:6], None, ""]}, "2 of 8 values of `groups` are missing"),
        ({"groups": {"a": [1.0] * 7 + [np.nan]}}, r"1 of 8 values of `groups\['a'\]`"),
        ({"groups": pd.Series([*SEX[:7], pd.NA])}, "1 of 8 values of `groups`"),
        ({"groups": ["men"] * 8}, "All 8 values of `groups` are 'men'"),
        ({"groups": {}}, "has no attribute"),
        ({"groups": np.zeros((8, 2))}, r"has the shape \(8, 2\)"),
        ({"groups": {1: SEX, "1": SEX}}, "has an attribute twice"),
        ({"y": np.ones(8, int)}, "All 8 labels are of one class, 1"),
        ({"y": LABELS.astype(str)}, "The labels are names"),
        ({"y": [1, 0, np.nan, 0, 1, 0, 0, 1]}, "1 of 8 labels are NaN"),
        ({"x": NAN}, "1 of 8 outputs of `model` are NaN"),
        ({"smallest": 1}, "smallest=1 must be"),
        ({"positive": 2}, "positive=2 is not a class"),
        ({"train": (LOGITS, LABELS)}, "`train` has no effect"),
        ({"train": (LOGITS, LABELS, SEX[:7])}, "`train groups` has 7 values"),
        ({"train": (LOGITS, LABELS, ["men", "x"] * 4)}, "have x, which no example"),
        ({"train": (LOGITS, LABELS + 5, SEX)}, "labels of `train` are not a class"),
        ({"train": (LOGITS, LABELS, {"age": SEX})}, "have the attributes"),
    ],
)
def test_bad_input_says_what_is_wrong(change, words):
    with pytest.raises(ValueError, match=words):
        audit(**change)


def test_bad_kinds_of_input():
    with pytest.raises(TypeError, match="groups=None has no group"):
        audit(groups=None)
    with pytest.raises(TypeError, match="groups='men' has no group"):
        audit(groups="men")
    with pytest.raises(TypeError, match="model is a function, not a keras.Model"):
        audit(model=lambda x: x)
    with pytest.raises(TypeError, match="`train` is a list"):
        audit(train=[LOGITS, LABELS])
    x, y, model = several(21)
    with pytest.raises(ValueError, match="21 classes, too many"):
        audit(x, y, RNG.choice(["a", "b"], 400), model)
    with pytest.raises(ValueError, match="51 different values.*pandas.cut"):
        audit(x, y, np.arange(400) % 51, model)
    with pytest.raises(ValueError, match="3 separate labels"):
        audit(np.ones((8, 3)), np.eye(8, 3, dtype=int) + np.eye(8, 3, 1, int))
    with pytest.raises(ValueError, match="2 numbers for each example"):
        audit(np.ones((8, 2)), RNG.normal(size=(8, 2)), model=same(2, "mse"))
    weighted = (LOGITS, LABELS, np.ones(8))
    with pytest.raises(ValueError, match="sample weights"):
        kt.analysis.fairness(same(), weighted, SEX)
    with pytest.raises(ValueError, match="no classes. Leave out `positive`"):
        audit(model=same(loss="mse"), positive=1)
    with pytest.raises(ValueError, match="have no effect for numbers"):
        audit(model=same(loss="mse"), train=(LOGITS, LABELS, SEX))


def test_a_dataset_with_a_changing_order_is_refused():
    x, y = RNG.normal(size=(90, 1)).astype("float32"), np.arange(90) % 2
    data = tf.data.Dataset.from_tensor_slices((x, y))
    with pytest.raises(ValueError, match="another order in each pass"):
        kt.analysis.fairness(same(), data.shuffle(90).batch(9), ["a", "b"] * 45)
