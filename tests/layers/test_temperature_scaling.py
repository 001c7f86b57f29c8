"""TemperatureScaling: the formula, and the same largest score in each bit."""

import keras
import numpy as np
import pytest
from scipy.special import expit
from scipy.special import softmax

from keras_transfer.layers import TemperatureScaling
from tests.contracts.compare import arrays
from tests.contracts.layer_contract import LayerContract


def logits(shape=(8, 4), scale=2.0):
    return (np.random.default_rng(0).normal(size=shape) * scale).astype("float32")


def value(x):
    return arrays(x)[0]


class TestTemperatureScaling(LayerContract):
    def make(self):
        return TemperatureScaling(2.5)

    def inputs(self):
        return logits()


def test_the_config_says_whether_scores_are_probabilities():
    layer = TemperatureScaling(0.7, from_logits=False)
    again = TemperatureScaling.from_config(layer.get_config())
    p = softmax(logits(), axis=-1)
    np.testing.assert_array_equal(value(again(p)), value(layer(p)))


def test_equals_the_formula_for_logits_and_probabilities():
    z = logits((50, 6))
    expected = softmax(z / 3.0, axis=-1)
    np.testing.assert_allclose(value(TemperatureScaling(3.0)(z)), z / 3, rtol=1e-6)
    layer = TemperatureScaling(3.0, from_logits=False)
    np.testing.assert_allclose(
        value(layer(softmax(z, axis=-1))), expected, rtol=1e-5, atol=1e-7
    )


def test_one_score_is_a_sigmoid():
    z = logits((50, 1))
    layer = TemperatureScaling(3.0, from_logits=False)
    np.testing.assert_allclose(value(layer(expit(z))), expit(z / 3), rtol=1e-5)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("temperature", [0.3, 3.0, 7.7])
def test_the_largest_score_stays_where_scores_differ_in_one_bit(
    from_logits, temperature
):
    random = np.random.default_rng(1)
    first = random.uniform(0.2, 0.49, 4000).astype("float32")
    # The second score is larger by one bit.
    x = np.stack([first, np.nextafter(first, np.float32(1)), first * 0], axis=1)
    naive = x / np.float32(temperature)
    if not from_logits:
        naive = softmax(np.log(np.maximum(x, 1e-12)) / np.float32(temperature), -1)
    if temperature > 1:  # so the guard is needed
        assert (naive.argmax(1) == 0).any()
    found = value(TemperatureScaling(temperature, from_logits=from_logits)(x))
    assert (found.argmax(1) == 1).all()
    np.testing.assert_allclose(found, naive, rtol=2e-6, atol=1e-6)


def test_negative_and_zero_scores_keep_the_class():
    x = np.float32([[-2.0, -2.0000002], [0.0, 0.0], [-1e30, 0.0], [5.0, 5.0]])
    assert (value(TemperatureScaling(9.0)(x)).argmax(1) == x.argmax(1)).all()


def test_a_probability_just_above_one_half_stays_above():
    x = np.float32([[0.5], [0.50000006], [0.49999997], [0.0], [1.0]])
    found = value(TemperatureScaling(50.0, from_logits=False)(x))
    assert ((found > 0.5) == (x > 0.5)).all() and np.isfinite(found).all()


def test_the_temperature_is_a_weight_that_does_not_train():
    layer = TemperatureScaling(2.0)
    layer(logits())
    assert float(keras.ops.convert_to_numpy(layer.temperature)) == 2.0
    assert layer.trainable_weights == [] and len(layer.weights) == 1


@pytest.mark.parametrize("wrong", [0, -1.0, np.nan, np.inf, True, "2"])
def test_a_wrong_temperature(wrong):
    with pytest.raises(ValueError, match="temperature=.*must be a finite number above"):
        TemperatureScaling(wrong)


def test_an_unknown_number_of_scores():
    with pytest.raises(ValueError, match="known number of scores"):
        TemperatureScaling()(keras.Input((None,)))
