"""The baseline of fairness, its amplification, intervals, and real data."""

import csv

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.analysis.audit import fairness_intervals
from keras_transfer.analysis.audit.fairness_groups import Attribute
from keras_transfer.analysis.audit.fairness_measures import by_group
from keras_transfer.analysis.audit.fairness_measures import columns_of
from keras_transfer.analysis.audit.fairness_measures import from_means
from keras_transfer.analysis.audit.fairness_rows import AuditRows
from keras_transfer.data.class_names import remember_class_names
from tests.analysis.audit.test_counterfactual import backbone
from tests.analysis.audit.test_counterfactual import preprocessor
from tests.analysis.audit.test_fairness import audit
from tests.analysis.audit.test_fairness import of
from tests.analysis.audit.test_fairness import same

RNG = np.random.default_rng(1)


def shifted(bias, name="base"):
    """Return a model whose logit is its input plus a bias."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)], name=name)
    model.set_weights([np.ones((1, 1)), np.array([bias])])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    return model


def sample(count=400):
    sex = RNG.choice(["m", "w"], count)
    x = RNG.normal(size=(count, 1)) + (sex == "m")[:, None]
    y = (x[:, 0] + RNG.normal(size=count) > 1).astype(int)
    return x.astype("float32"), y, sex


def test_a_baseline_with_a_head_is_next_to_the_model():
    x, y, sex = sample()
    found = audit(x, y, sex, baseline=shifted(-1.0))
    alone = audit(x, y, sex, model=shifted(-1.0))
    assert found.values("accuracy", "group", of="baseline") == alone.values(
        "accuracy", "group"
    )
    gap, before, change = (
        found.difference("positive_rate", "group", of=name)
        for name in ("model", "baseline", "change")
    )
    expected = alone.difference("positive_rate", "group")
    assert before == pytest.approx(expected, abs=0.02) and before[0] == expected[0]
    assert change[0] == pytest.approx(gap[0] - before[0])
    assert change[1] < change[0] < change[2]
    # The two models agree on most examples, so the paired interval is narrower.
    apart = np.hypot(gap[2] - gap[1], before[2] - before[1])
    assert change[2] - change[1] < apart
    assert "the predictions of 'base'" in str(found)


def test_the_same_baseline_has_no_change():
    x, y, sex = sample()
    found = audit(x, y, sex, baseline=shifted(0.0))
    assert found.difference("positive_rate", "group", of="change") == [0, None, None]
    assert "change +0.000, which is not clear of 0" in str(found)


def test_a_probe_is_fitted_on_other_examples():
    """A probe that saw its examples would separate random labels."""
    backbone = keras.Sequential([keras.Input((60,)), keras.layers.Dense(60)])
    x, y = RNG.normal(size=(120, 60)).astype("float32"), RNG.integers(0, 2, 120)
    sex = RNG.choice(["m", "w"], 120)
    model = keras.Sequential([keras.Input((60,)), keras.layers.Dense(2)])
    found = audit(x, y, sex, model, baseline=backbone)
    assert max(found.values("accuracy", "group", of="baseline").values()) < 0.7
    assert "a logistic probe on the 60 features" in str(found)
    assert "cross-fitting" in str(found)
    seen = audit(x, y, sex, model, baseline=backbone, train=(x, y))
    gain = min(
        value - found.values("accuracy", "group", of="baseline")[name]
        for name, value in seen.values("accuracy", "group", of="baseline").items()
    )
    assert gain > 0.1
    assert "fitted on `train`" in str(seen)


def test_the_probe_of_a_regression_equals_ridge():
    from sklearn.linear_model import RidgeCV

    backbone = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    x = RNG.normal(size=(200, 3)).astype("float32")
    y = x @ [1.0, 2.0, 0.0] + RNG.normal(size=200)
    sex = RNG.choice(["m", "w"], 200)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    found = audit(x, y, sex, model, baseline=backbone, train=(x, y))
    features = backbone.predict(x, verbose=0)
    error = RidgeCV(np.logspace(-2, 5, 15)).fit(features, y).predict(features) - y
    values = found.values("mean_absolute_error", "group", of="baseline")
    for group in "mw":
        expected = np.abs(error[sex == group]).mean()
        assert values[group] == pytest.approx(expected, rel=0.02)
    crossed = audit(x, y, sex, model, baseline=backbone)
    assert "a ridge regression on the 4 features" in str(crossed)


@pytest.mark.slow
def test_a_backbone_reads_what_the_preprocessor_of_a_task_returns():
    task = keras_hub.models.BertTextClassifier(
        backbone(), num_classes=2, preprocessor=preprocessor()
    )
    texts = np.array(["he is good", "she is bad", "she is good", "he is bad"] * 6)
    y, sex = np.array([1, 0, 1, 0] * 6), np.array(["m", "w", "w", "m"] * 6)
    found = audit(texts, y, sex, task, baseline=backbone())
    assert "cross-fitting" in str(found)
    # The same texts are in all folds, so the probe knows them.
    values = found.values("accuracy", "group", of="baseline")
    assert values == {"m": 1.0, "w": 1.0}
    data = tf.data.Dataset.from_tensor_slices((texts, y)).batch(5)
    again = kt.analysis.fairness(
        task, data, sex, baseline=backbone(), train=(texts, y), smallest=2
    )
    assert again.values("accuracy", "group", of="baseline") == values


def test_bad_baselines():
    x, y, sex = sample(60)
    model = same()
    with pytest.raises(ValueError, match="baseline is the model itself"):
        audit(x, y, sex, model, baseline=model)
    with pytest.raises(TypeError, match="baseline is a str, not a keras.Model"):
        audit(x, y, sex, model, baseline="bert")
    with pytest.raises(ValueError, match="baseline predicts numbers, but model"):
        audit(x, y, sex, model, baseline=same(loss="mse"))
    named, other = shifted(0.0), shifted(0.0)
    remember_class_names(named, ["no", "yes"])
    remember_class_names(other, ["yes", "no"])
    with pytest.raises(ValueError, match="baseline has the classes yes, no, but"):
        audit(x, y, sex, named, baseline=other)
    with pytest.raises(ValueError, match="fitted on are of one class"):
        backbone = keras.Sequential([keras.Input((1,)), keras.layers.Dense(5)])
        audit(x, y, sex, baseline=backbone, train=(x, np.ones(60, int)))


def test_amplification_by_hand():
    """Zhao et al.: of cooking, women are 66 % in training and 84 % of predictions."""
    count = 100
    cooks = np.repeat(["w", "m"], [66, 34])
    others = np.repeat(["w", "m"], [50, 50])
    train = np.zeros((200, 1)), np.repeat([1, 0], count), np.r_[cooks, others]
    groups = np.repeat(["w", "m", "w", "m"], [84, 16, 50, 50])
    logits = np.repeat([1.0, -1.0], count)[:, None].astype("float32")
    labels = np.r_[np.ones(83), np.zeros(17), np.zeros(83), np.ones(17)].astype(int)
    found = audit(logits, labels, groups, train=train)
    (content,) = found.to_dict()["attributes"]
    (row,) = content["shares"]
    assert row["training"] == pytest.approx([0.34, 0.66])
    assert [each[0] for each in row["model"]] == pytest.approx([0.16, 0.84])
    value, low, high = content["amplification"]["training"]["model"]
    assert value == pytest.approx(0.18) and low < 0.18 < high
    # The labels of these data are 83 % of women.
    value, low, high = content["amplification"]["labels"]["model"]
    assert value == pytest.approx(0.01) and low < 0.01 < high
    assert "Bias amplification (Zhao et al. 2017), against the training" in str(found)


def test_amplification_is_the_mean_over_classes():
    classes, groups = np.arange(300) % 3, np.where(RNG.random(300) < 0.7, "a", "b")
    predicted = np.where(RNG.random(300) < 0.6, classes, RNG.integers(0, 3, 300))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    logits = np.eye(3, dtype="float32")[predicted]
    found = audit(logits, classes, groups, same(3, loss), baseline=same(3, loss))
    expected = []
    for number in range(3):
        before, after = (
            np.array([np.mean(groups[side == number] == name) for name in "ab"])
            for side in (classes, predicted)
        )
        expected.append((after - before)[before > 0.5].sum())
    amplified = found.to_dict()["attributes"][0]["amplification"]["labels"]
    assert amplified["model"][0] == pytest.approx(np.mean(expected))
    assert amplified["change"][0] == 0


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_means_of_columns_give_what_fairlearn_gives(kind):
    numbers = RNG.integers(0, 3, (2, 200)), RNG.normal(size=(2, 200))
    true, predicted = numbers[kind == "numbers"]
    rows = AuditRows(kind, true, predicted, ("a", "b", "c"))
    group = RNG.integers(0, 4, 200)
    positive = 1 if kind == "classes" else None
    found = by_group(rows, Attribute("x", tuple("abcd"), group), positive)
    columns = columns_of(rows, positive)
    means = np.stack([columns[group == each].mean(0) for each in range(4)])
    for name, values in from_means(means, positive).items():
        assert values == pytest.approx(found[name]), name


def test_intervals_are_reproducible():
    x, y, sex = sample(200)
    first, second = (audit(x, y, sex, shifted(0.0)).to_json() for _ in range(2))
    assert first == second


def test_intervals_of_a_difference_have_their_coverage():
    """95 % of the intervals contain the true difference, up to the noise of 300."""
    random, inside = np.random.default_rng(0), 0
    index = np.repeat([0, 1], [120, 80])
    for _ in range(300):
        column = (random.random(200) < np.where(index, 0.3, 0.5)).astype(float)
        draws = fairness_intervals.resample(column[:, None], index, 2)[..., 0]
        values = np.array([column[index == group].mean() for group in (0, 1)])
        found = fairness_intervals.difference_of(values, draws, (0, 1))
        _, low, high = fairness_intervals.interval(*found)
        inside += low <= 0.2 <= high
    assert 0.90 <= inside / 300 <= 0.98


def test_the_bootstrap_has_the_error_of_a_mean():
    column = RNG.normal(size=(500, 1))
    draws = fairness_intervals.resample(column, np.zeros(500, int), 1)[0, :, 0]
    assert draws.mean() == pytest.approx(column.mean(), abs=0.01)
    assert draws.std() == pytest.approx(column.std() / np.sqrt(500), rel=0.1)


def table(folder, name):
    """Return a dict of the columns of a table with a header."""
    with open(folder / name, encoding="utf-8", newline="") as file:
        names, *rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    return dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))


def numeric(columns):
    """Return numbers, standardized, and a column for each word."""
    parts = []
    for values in columns:
        try:
            values = values.astype("float64")
            parts.append(((values - values.mean()) / values.std())[:, None])
        except ValueError:
            parts.append(values[:, None] == np.unique(values))
    return np.concatenate(parts, axis=1).astype("float32")


@pytest.mark.slow
def test_adult_has_the_known_rates(data_folder):
    """A logistic regression predicts >50K for 7.7 % of women and 25.6 % of men."""
    from sklearn.linear_model import LogisticRegression

    columns = table(data_folder, "adult.tsv")
    y = (columns["income-per-year"] == ">50K").astype(int)
    x = numeric([columns[name] for name in columns if name != "income-per-year"])
    order = np.random.default_rng(0).permutation(len(y))
    train, test = order[:20_000], order[20_000:]
    fitted = LogisticRegression(max_iter=1000).fit(x[train], y[train])
    model = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Dense(1)])
    model.set_weights([fitted.coef_.T, fitted.intercept_])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    groups = {name: columns[name][test] for name in ("sex", "race")}
    found = kt.analysis.fairness(model, (x[test], y[test]), groups)
    rates = found.values("positive_rate", "sex")
    assert rates["Female"] == pytest.approx(0.077, abs=0.01)
    assert rates["Male"] == pytest.approx(0.256, abs=0.012)
    right = np.mean(fitted.predict(x[test]) == y[test])
    sizes = [np.mean(groups["sex"] == name) for name in ("Female", "Male")]
    accuracies = found.values("accuracy", "sex")
    assert np.dot([*accuracies.values()], sizes) == pytest.approx(right)
    assert right == pytest.approx(0.849, abs=0.01)
    content = found.to_dict()["attributes"][2]
    assert len(content["groups"]) == 10 and of(content, "accuracy")
