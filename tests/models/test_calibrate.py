"""calibrate: known temperatures, scikit-learn, cross-fitting, shift, bad input."""

import json

import keras
import numpy as np
import pytest
from scipy.special import expit
from scipy.special import softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

import keras_transfer as kt
from keras_transfer.analysis.calibration.labeled_outputs import LabeledOutputs
from keras_transfer.models.calibrator_fits import fit_isotonic
from keras_transfer.models.calibrator_fits import fit_temperature
from keras_transfer.models.calibrator_fits import fit_vector
from tests.contracts import compare
from tests.models import calibration_models


def run(model, x):
    """Return the outputs of a model or layer as an array."""
    return compare.arrays(model(x))[0]


def read(z, y):
    names = tuple(map(str, range(max(2, z.shape[1]))))
    return LabeledOutputs(y, z.astype("float64"), True, names)


def test_the_known_temperature_comes_back():
    z, y = calibration_models.drawn(count=20000)
    layer = fit_temperature(read(z * 4, y))
    assert layer.get_config()["temperature"] == pytest.approx(4.0, rel=0.03)


def test_temperature_by_hand():
    # Three of four are right at logits (2, 0): sigmoid(2 / T) = 3 / 4, T = 2 / log 3.
    z = np.tile([2.0, 0.0], (4, 1))
    layer = fit_temperature(read(z, np.array([0, 0, 0, 1])))
    assert layer.get_config()["temperature"] == pytest.approx(2 / np.log(3), rel=1e-6)
    one = fit_temperature(read(np.full((4, 1), -2.0), np.array([0, 0, 0, 1])))
    assert one.get_config()["temperature"] == pytest.approx(2 / np.log(3), rel=1e-6)


class Raw(LogisticRegression):
    """An estimator whose decision is its input, for CalibratedClassifierCV."""

    def decision_function(self, X):
        return X

    def predict_proba(self, X):
        return softmax(X, axis=1)


def raw(z, y):
    return FrozenEstimator(Raw().fit(z[:300], y[:300]))


def test_temperature_equals_scikit_learn():
    z, y = calibration_models.drawn()
    peer = CalibratedClassifierCV(raw(z * 4, y), method="temperature").fit(z * 4, y)
    layer = fit_temperature(read(z * 4, y))
    np.testing.assert_allclose(
        softmax(run(layer, z * 4), 1), peer.predict_proba(z * 4), atol=1e-3
    )


def test_vector_is_the_minimum():
    z, y = calibration_models.drawn(count=2000)
    biased = z * [2.0, 3.0, 4.0] + [1.0, 0.0, -1.0]
    config = fit_vector(read(biased, y)).get_config()
    # The right answer is z again: factors 1/2, 1/3, 1/4.
    np.testing.assert_allclose(config["factors"], [1 / 2, 1 / 3, 1 / 4], rtol=0.15)

    def slopes(factors, offsets):
        errors = softmax(biased * factors + offsets, 1) - np.eye(3)[y]
        return (errors * biased).mean(0), errors.mean(0)

    for slope in slopes(config["factors"], config["offsets"]):
        np.testing.assert_allclose(slope, 0, atol=1e-4)


def test_platt_scaling_equals_logistic_regression():
    z, y = calibration_models.drawn(classes=2)
    score = (z[:, 1:] - z[:, :1]) * 3 + 1
    peer = LogisticRegression(C=np.inf).fit(score, y)
    config = fit_vector(read(score, y)).get_config()
    assert config["factors"][0] == pytest.approx(peer.coef_[0, 0], rel=1e-3)
    assert config["offsets"][0] == pytest.approx(peer.intercept_[0], rel=1e-2)


@pytest.mark.parametrize("classes", [2, 3])
def test_isotonic_equals_scikit_learn(classes):
    from sklearn.isotonic import IsotonicRegression

    z, y = calibration_models.drawn(classes=classes)
    p = softmax(z.astype("float64") * 4, axis=1)
    curves = [
        IsotonicRegression(out_of_bounds="clip")
        .fit(p[:, k].round(5), y == k)
        .predict(p[:, k])
        for k in range(classes)
    ]
    expected = np.stack(curves, 1)
    if classes == 2:
        expected[:, 0] = 1 - expected[:, 1]
    total = expected.sum(1, keepdims=True)
    expected = np.where(total > 0, expected / np.maximum(total, 1e-30), 1 / classes)
    found = softmax(run(fit_isotonic(read(z * 4, y)), z * 4), 1)
    # Steps are 1e-5 wide, and float32 has an error of about 1e-7.
    np.testing.assert_allclose(found, expected, atol=2e-2)
    assert np.abs(found - expected).mean() < 1e-4


@pytest.mark.parametrize(
    "method, activation",
    [
        ("temperature", None),
        ("vector", None),
        ("isotonic", None),
        ("vector", "softmax"),
    ],
)
def test_each_method_calibrates_and_keeps_the_kind(method, activation):
    x, y = calibration_models.drawn()
    model = calibration_models.certain(activation=activation)
    calibrated = kt.calibrate(model, (x, y), method=method)
    result = calibrated.calibration
    assert result.helped and result.method == method
    assert result.after.ece < 0.3 * result.before.ece
    assert result.before.ece == kt.analysis.calibration_error(model, (x, y)).ece
    outputs = run(calibrated, x)
    sums = np.abs(outputs.sum(1) - 1) < 1e-4
    assert sums.all() if activation else not sums.all()
    loss, accuracy = calibrated.evaluate(x, y, verbose=0)
    assert loss < model.evaluate(x, y, verbose=0)[0]
    if method == "temperature":
        assert accuracy == pytest.approx(result.before.accuracy)
        assert (outputs.argmax(1) == run(model, x).argmax(1)).all()
        assert result.after.accuracy == result.before.accuracy


@pytest.mark.parametrize(
    "method, activation",
    [
        ("temperature", None),
        ("vector", None),
        ("isotonic", None),
        ("vector", "sigmoid"),
    ],
)
def test_one_output_unit(method, activation):
    model, (x, y) = calibration_models.one_unit(activation)
    calibrated = kt.calibrate(model, (x, y), method=method)
    assert calibrated.calibration.helped
    assert calibrated.output_shape == (None, 1)
    before, after = (
        model.evaluate(x, y, verbose=0),
        calibrated.evaluate(x, y, verbose=0),
    )
    assert after[0] < before[0]
    shown = kt.analysis.calibration_error(calibrated, (x, y))
    assert shown.ece < kt.analysis.calibration_error(model, (x, y)).ece
    if method == "temperature":
        outputs = run(calibrated, x)
        outputs = outputs if activation else expit(outputs)
        assert ((outputs > 0.5)[:, 0] == (x[:, 1] > x[:, 0])).all()


def test_the_figure_after_is_not_from_the_examples_of_the_fit():
    # No signal but noise: curves fit it, and cross-fitting must show that.
    random = np.random.default_rng(0)
    x = random.normal(size=(120, 3)).astype("float32")
    y = random.integers(0, 3, 120)
    model = calibration_models.certain()
    result = kt.calibrate(model, (x, y), method="isotonic")
    on_the_fit = kt.analysis.calibration_error(result, (x, y)).to_dict()
    assert result.calibration.to_dict()["after"]["log_loss"] > on_the_fit["log_loss"]


def test_it_says_when_calibration_did_not_help():
    z, y = calibration_models.drawn(count=200)
    model = calibration_models.certain()
    result = kt.calibrate(model, (z / 4, y), method="isotonic").calibration
    assert not result.helped and result.verdict != "better"
    assert "did not" in str(result)


def test_under_shift():
    z, y = calibration_models.drawn(count=3000)
    model = calibration_models.certain()
    calibrated = kt.calibrate(model, (z, y))
    noisy = z + np.random.default_rng(1).normal(size=z.shape).astype("float32") * 3
    own = kt.analysis.calibration_error(calibrated, (z, y)).ece
    shifted = kt.analysis.calibration_error(calibrated, (noisy, y)).ece
    before = kt.analysis.calibration_error(model, (noisy, y)).ece
    assert own < 0.03 < shifted < before


def test_seeds_and_files(tmp_path):
    x, y = calibration_models.drawn()
    model = calibration_models.certain()
    first, same, other = (
        kt.calibrate(model, (x, y), seed=seed).calibration for seed in (0, 0, 1)
    )
    assert first.to_dict() == same.to_dict() != other.to_dict()
    assert first.temperature == other.temperature
    for name in ("c.html", "c.md", "c.json", "c.txt", "c.png"):
        first.save(tmp_path / name)
    assert json.loads((tmp_path / "c.json").read_text())["verdict"] == "better"
    assert "Temperature: 4.4" in (tmp_path / "c.txt").read_text()


def test_a_list_of_class_names_is_kept():
    x, y = calibration_models.drawn()
    names = np.array(["<b>", "dog", "cat"])
    model = calibration_models.certain()
    calibrated = kt.calibrate(model, (x, names[y]), class_names=names)
    rows = calibrated.calibration.before.to_dict()["classes"]
    assert [row["name"] for row in rows] == names.tolist()


def test_bad_input():
    x, y = calibration_models.drawn()
    model = calibration_models.certain()
    with pytest.raises(ValueError, match="method='platt' must be one of"):
        kt.calibrate(model, (x, y), method="platt")
    with pytest.raises(ValueError, match="folds=1 must be"):
        kt.calibrate(model, (x, y), folds=1)
    with pytest.raises(TypeError, match="not a keras.Model"):
        kt.calibrate(keras.layers.Dense(3), (x, y))
    with pytest.raises(ValueError, match="19 examples, but at least 20"):
        kt.calibrate(model, (x[:19], y[:19]))
    with pytest.raises(ValueError, match="All 600 labels are of one class, '1'"):
        kt.calibrate(model, (x, np.ones_like(y)))
    with pytest.raises(ValueError, match="labels are outside 0 to 2: 3"):
        kt.calibrate(model, (x, np.where(y == 2, 3, y)))
    few = np.r_[np.flatnonzero(y == 2)[:4], np.flatnonzero(y != 2)]
    for method in ("vector", "isotonic"):
        with pytest.raises(ValueError, match="1 of 3 classes have fewer than 5.*: 2"):
            kt.calibrate(model, (x[few], y[few]), method=method)
    for method in ("temperature", "vector"):
        with pytest.raises(ValueError, match="classified correctly"):
            kt.calibrate(model, (x, x.argmax(1)), method=method)
    with pytest.raises(ValueError, match="no more than a guess"):
        kt.calibrate(model, (x, x.argmin(1)))
    calibrated = kt.calibrate(model, (x, y))
    with pytest.raises(ValueError, match="is calibrated already"):
        kt.calibrate(calibrated, (x, y))
