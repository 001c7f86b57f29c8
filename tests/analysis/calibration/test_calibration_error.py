"""calibration_error: cases by hand, the papers' formulas, bad input, files."""

import json

import keras
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss

import keras_transfer as kt
from keras_transfer.analysis.calibration.measures import square_error
from tests.models import calibration_models


def pairs(second):
    """Return rows for two classes from probabilities of the second class."""
    return np.stack([1 - np.asarray(second), second], 1)


# Five examples: confidences 0.9, 0.9, 0.9, 0.6, 0.6, of which 2 and 0 are right.
BY_HAND = pairs([0.9, 0.9, 0.1, 0.6, 0.4]), np.array([1, 1, 1, 0, 1])


def test_a_case_by_hand():
    error = kt.analysis.calibration_error(*BY_HAND, bins=5)
    # The bins are (0.8, 1] and (0.4, 0.6]: 3/5 |2/3 - 0.9| + 2/5 |0 - 0.6|.
    assert error.ece == pytest.approx(0.6 * (0.9 - 2 / 3) + 0.4 * 0.6)
    assert error.accuracy == pytest.approx(0.4)
    rows = error.to_dict()["bins"]
    assert [row["examples"] for row in rows] == [0, 0, 2, 0, 3]
    assert rows[0]["accuracy"] is None and rows[4]["accuracy"] == pytest.approx(2 / 3)


def kumar(confidences, hits, bins):
    """The plug-in and the debiased estimator of Kumar et al., with loops."""
    order = np.argsort(confidences, kind="stable")
    plain = debiased = 0.0
    for part in np.array_split(order, bins):
        share = len(part) / len(order)
        mean, accuracy = np.mean(confidences[part]), np.mean(hits[part])
        plain += share * (mean - accuracy) ** 2
        noise = accuracy * (1 - accuracy) / (len(part) - 1)
        debiased += share * ((mean - accuracy) ** 2 - noise)
    return plain, debiased


def test_measures_equal_the_formulas_and_scikit_learn():
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(4), 200)
    y = random.integers(0, 4, 200)
    found = kt.analysis.calibration_error(p, y, bins=10).to_dict()
    hits = (p.argmax(1) == y).astype(float)
    plain, debiased = kumar(p.max(1), hits, 10)
    assert found["rms"] == pytest.approx(np.sqrt(plain))
    assert found["rms_debiased"] == pytest.approx(np.sqrt(max(debiased, 0)))
    assert found["log_loss"] == pytest.approx(log_loss(y, p))
    brier = brier_score_loss(y, p, labels=range(4), scale_by_half=False)
    assert found["brier"] == pytest.approx(brier)


def test_the_debiased_estimate_of_a_calibrated_classifier_is_about_zero():
    plain, debiased = [], []
    for seed in range(300):
        random = np.random.default_rng(seed)
        p = random.uniform(0.5, 1, 150)
        hits = (random.uniform(size=150) < p).astype(float)
        plain.append(square_error(p, hits, 15, debiased=False))
        debiased.append(square_error(p, hits, 15, debiased=True))
    error = np.std(debiased) / np.sqrt(300)
    # The variance inside of a bin, (0.5 / 15)^2 / 12, is not an error of this size.
    assert abs(np.mean(debiased)) < 4 * error
    assert np.mean(plain) > 20 * error


def test_a_model_equals_its_probabilities_and_does_not_change():
    x, y = calibration_models.drawn()
    model = calibration_models.certain()
    before = model.get_weights()
    function = model.predict_function
    error = kt.analysis.calibration_error(model, (x, y))
    p = softmax(4.0 * x.astype("float64"), axis=1)
    assert error.ece == pytest.approx(kt.analysis.calibration_error(p, y).ece, abs=1e-5)
    assert model.predict_function is function
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_kinds_of_labels_and_data():
    x, y = calibration_models.drawn()
    model = calibration_models.certain()
    names = ["a", "b", "c"]
    plain = kt.analysis.calibration_error(model, (x, y)).ece
    one_hot = kt.analysis.calibration_error(model, (x, np.eye(3)[y]))
    named = kt.analysis.calibration_error(
        model, (x, np.array(names)[y]), class_names=names
    )
    tf = pytest.importorskip("tensorflow")
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(64)
    batched = kt.analysis.calibration_error(model, dataset)
    assert {one_hot.ece, named.ece} == {plain}
    assert batched.ece == pytest.approx(plain, abs=1e-6)
    column = kt.analysis.calibration_error(
        np.linspace(0.01, 0.99, 40), np.arange(40) % 2
    )
    assert column.to_dict()["classes"][1]["name"] == "1"


def test_files_and_escaping(tmp_path):
    x, y = calibration_models.drawn()
    names = ["<script>alert(1)</script>", "$b$", "c"]
    error = kt.analysis.calibration_error(softmax(x, axis=1), y, class_names=names)
    for name in ("e.html", "e.md", "e.json", "e.txt", "e.png"):
        error.save(tmp_path / name)
    page = (tmp_path / "e.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "svg" in page
    assert json.loads((tmp_path / "e.json").read_text()) == error.to_dict()
    assert (tmp_path / "e.png").read_bytes().startswith(b"\x89PNG")
    assert "ECE" in str(error) and "no examples" in str(error)
    with pytest.raises(ValueError, match="suffix must be"):
        error.plot(tmp_path / "e.gif")
    with pytest.raises(ValueError, match="does not exist"):
        error.save(tmp_path / "none" / "e.png")


HALF = np.full((20, 2), 0.5)
ZERO_ONE = np.arange(20) % 2


@pytest.mark.parametrize(
    "p, y, match",
    [
        (HALF, np.zeros(20, int), "All 20 labels are of one class, '0'"),
        (HALF * 0.9, ZERO_ONE, "20 of 20 rows of probabilities do not sum to 1"),
        (HALF * [3, -1], ZERO_ONE, "outside 0 to 1, from -0.5 to 1.5"),
        (HALF, ZERO_ONE[:19], "19 labels for 20 rows"),
        (HALF, ZERO_ONE + 1, "outside 0 to 1: 2"),
        (HALF, ZERO_ONE - 1, "outside 0 to 1: -1"),
        (HALF[:5], ZERO_ONE[:5], "5 examples, but at least 15"),
        (HALF * np.nan, ZERO_ONE, "NaN or infinite for 20 of 20"),
        (HALF, ZERO_ONE * np.nan, "20 of 20 labels are NaN"),
        (HALF, ZERO_ONE + 0.5, "not whole numbers"),
        (HALF[None], ZERO_ONE, r"shape \(1, 20, 2\)"),
        (HALF, np.full((20, 2), 0.5), "not one-hot"),
    ],
)
def test_bad_probabilities(p, y, match):
    with pytest.raises(ValueError, match=match):
        kt.analysis.calibration_error(p, y)


def test_bad_arguments():
    x, y = calibration_models.drawn()
    model = calibration_models.certain()
    error = kt.analysis.calibration_error
    with pytest.raises(ValueError, match="bins=1 must be"):
        error(HALF, ZERO_ONE, bins=1)
    with pytest.raises(ValueError, match="has no effect on an array"):
        error(HALF, ZERO_ONE, from_logits=True)
    with pytest.raises(TypeError, match="is a tuple of 2"):
        error(HALF, (x, y))
    with pytest.raises(TypeError, match="first argument is a str"):
        error("model", ZERO_ONE)
    with pytest.raises(ValueError, match="class_names is"):
        error(HALF, ZERO_ONE, class_names=["a", "a"])
    with pytest.raises(ValueError, match="class_names is 2, but there are 2 classes"):
        error(HALF, ZERO_ONE, class_names=2)
    with pytest.raises(ValueError, match="outside 0 to 1, from"):
        error(model, (x, y), from_logits=False)
    with pytest.raises(ValueError, match="sample weights have no effect"):
        error(model, (x, y, np.ones(len(y))))
    with pytest.raises(ValueError, match=r"examples. Pass arrays of the same length"):
        error(model, (x, y[:-1]))
    with pytest.raises(ValueError, match="NaN or infinite for 1 of 600"):
        error(model, (np.where(np.arange(600)[:, None] == 7, np.nan, x), y))
    with pytest.raises(ValueError, match="from_logits='yes' must be"):
        error(model, (x, y), from_logits="yes")


def test_models_without_one_class_for_each_example():
    inputs = keras.Input((3,))
    several = keras.Model(inputs, [keras.layers.Dense(2)(inputs) for _ in range(2)])
    x, y = calibration_models.drawn()
    with pytest.raises(ValueError, match="has several outputs"):
        kt.analysis.calibration_error(several, (x, y))
    heads = {"kind": keras.layers.Dense(2)(inputs), "size": several.output[0]}
    several = keras.Model(inputs, heads)
    with pytest.raises(ValueError, match=r"several outputs, \['kind', 'size'\]"):
        kt.analysis.calibration_error(several, (x, y))
    yes_or_no = keras.Sequential([inputs, keras.layers.Dense(3)])
    yes_or_no.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="separate yes or no"):
        kt.analysis.calibration_error(yes_or_no, (x, y))
    dense = keras.Sequential([inputs, keras.layers.Reshape((3, 1))])
    with pytest.raises(ValueError, match="each token or pixel are not supported"):
        kt.analysis.calibration_error(dense, (x, y))
    wrong = calibration_models.certain(activation="softmax")
    wrong.compile(loss=calibration_models.SPARSE(from_logits=True))
    with pytest.raises(ValueError, match="are probabilities, but the compiled loss"):
        kt.analysis.calibration_error(wrong, (x, y))


def test_the_kind_of_outputs_without_a_loss():
    x, y = calibration_models.drawn()
    for activation in (None, "softmax"):
        model = calibration_models.certain(activation=activation)
        right = kt.analysis.calibration_error(model, (x, y)).ece
        model.compiled = False
        assert kt.analysis.calibration_error(model, (x, y)).ece == right
    unclear = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(1, "sigmoid"), keras.layers.Flatten()]
    )
    with pytest.raises(ValueError, match="Pass from_logits=True if"):
        kt.analysis.calibration_error(unclear, (x, y > 0))
    assert kt.analysis.calibration_error(unclear, (x, y > 0), from_logits=False).ece > 0
