"""VectorScaling: the formula, for several scores and for one."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.special import logit
from scipy.special import softmax

from keras_transfer.layers import VectorScaling
from tests.contracts.compare import arrays
from tests.contracts.layer_contract import LayerContract

FACTORS, OFFSETS = [0.5, 2.0, 1.0], [0.1, -0.3, 0.0]


def logits(width=3):
    return np.random.default_rng(0).normal(size=(8, width)).astype("float32")


def value(x):
    return arrays(x)[0]


class TestVectorScaling(LayerContract):
    def make(self):
        return VectorScaling(FACTORS, OFFSETS)

    def inputs(self):
        return logits()


def test_equals_the_formula():
    z = logits()
    expected = z * FACTORS + OFFSETS
    np.testing.assert_allclose(value(VectorScaling(FACTORS, OFFSETS)(z)), expected)
    layer = VectorScaling(FACTORS, OFFSETS, from_logits=False)
    p = softmax(z, axis=-1)
    expected = softmax(np.log(p) * FACTORS + OFFSETS, axis=-1)
    np.testing.assert_allclose(value(layer(p)), expected, rtol=1e-5)


def test_one_score_is_platt_scaling():
    p = expit(logits(1))
    layer = VectorScaling([1.5], [0.2], from_logits=False)
    np.testing.assert_allclose(value(layer(p)), expit(1.5 * logit(p) + 0.2), rtol=1e-5)


def test_the_default_changes_nothing():
    layer = VectorScaling()
    np.testing.assert_array_equal(value(layer(logits())), logits())
    assert layer.trainable_weights == [] and len(layer.weights) == 2


def test_wrong_numbers():
    with pytest.raises(
        ValueError, match=r"factors\[1\] is nan, but must be a finite number"
    ):
        VectorScaling([1.0, np.nan])
    with pytest.raises(ValueError, match="offsets has 2 numbers, but the input has 3"):
        VectorScaling(None, [0.0, 1.0])(logits())
