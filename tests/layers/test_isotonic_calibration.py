"""IsotonicCalibration: the curves of scikit-learn, in the graph."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.special import softmax
from sklearn.isotonic import IsotonicRegression

from keras_transfer.layers import IsotonicCalibration
from tests.contracts.compare import arrays
from tests.contracts.layer_contract import LayerContract

X = [[0.0, 0.2, 0.6], [0.1, 0.5, 0.5], [0.3, 0.9, 1.0]]
Y = [[0.0, 0.3, 0.9], [0.2, 0.6, 0.6], [0.0, 0.0, 1.0]]
HIGH = [[0.2, 0.3, 0.9], [0.2, 0.6, 0.6], [0.2, 0.3, 1.0]]  # small logits, to train


def logits(width=3, count=8):
    return np.random.default_rng(0).normal(size=(count, width)).astype("float32")


def value(x):
    return arrays(x)[0]


class TestIsotonicCalibration(LayerContract):
    def make(self):
        return IsotonicCalibration(X, HIGH)

    def inputs(self):
        return logits()


def test_the_config_says_whether_scores_are_probabilities():
    layer = IsotonicCalibration(X, Y, from_logits=False)
    again = IsotonicCalibration.from_config(layer.get_config())
    p = softmax(logits(), axis=-1)
    np.testing.assert_array_equal(value(again(p)), value(layer(p)))


def test_equals_isotonic_regression_of_scikit_learn():
    random = np.random.default_rng(3)
    scores = random.uniform(0.1, 0.9, 300)
    labels = random.uniform(size=300) < scores**2
    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    curve.fit(scores, labels)
    points = [curve.X_thresholds_.tolist()], [curve.y_thresholds_.tolist()]
    layer = IsotonicCalibration(*points, from_logits=False)
    asked = np.concatenate([np.linspace(0, 1, 500), curve.X_thresholds_])
    found = value(layer(asked[:, None].astype("float32")))[:, 0]
    np.testing.assert_allclose(found, curve.predict(asked), atol=2e-5)


def test_several_classes_equal_numpy():
    p = softmax(logits(count=200), axis=-1)
    values = np.stack([np.interp(p[:, k], X[k], Y[k]) for k in range(3)], 1)
    total = values.sum(1, keepdims=True)
    expected = np.where(total > 0, values / np.where(total > 0, total, 1), 1 / 3)
    found = value(IsotonicCalibration(X, Y, from_logits=False)(p))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    logs = value(IsotonicCalibration(X, Y)(logits(count=200)))
    np.testing.assert_allclose(softmax(logs, -1), expected, atol=1e-5)


def test_a_case_by_hand_and_all_zero():
    # f = (0.3, 0.6, 0) -> (1/3, 2/3, 0); the second row is 0 everywhere.
    flat = [[0.0, 1.0]] * 3
    zero = IsotonicCalibration(flat, [[0.0, 0.0]] * 3, from_logits=False)
    p = np.float32([[0.2, 0.5, 0.3]])
    found = value(IsotonicCalibration(X, Y, from_logits=False)(p))
    np.testing.assert_allclose(found, [[1 / 3, 2 / 3, 0]], atol=1e-6)
    np.testing.assert_allclose(value(zero(p)), [[1 / 3] * 3], rtol=1e-6)


def test_two_classes_have_one_curve():
    curve = [[0.0, 1.0]], [[0.0, 0.5]]
    two = value(IsotonicCalibration(*curve, from_logits=False)(np.float32([[0, 1]])))
    assert two.tolist() == [[0.5, 0.5]]
    z = logits(1)
    one = value(IsotonicCalibration(*curve)(z))
    np.testing.assert_allclose(expit(one), expit(z) / 2, rtol=1e-5)
    assert np.isfinite(value(IsotonicCalibration(*curve)(np.float32([[-200.0]]))))


@pytest.mark.parametrize(
    "x, y, match",
    [
        ([[0.5, 0.2]], [[0, 1]], "x.0.=.*do not fall"),
        ([[0.0, 1.2]], [[0, 1]], "from 0 to 1"),
        ([[0.0, 1.0]], [[0.0]], "same number of points"),
        ([], [], "x is empty"),
        ([[0, 1]] * 2, [[0, 1]] * 2, "2 curves, but 3 scores need 3"),
    ],
)
def test_wrong_points(x, y, match):
    with pytest.raises(ValueError, match=match):
        IsotonicCalibration(x, y)(logits())
