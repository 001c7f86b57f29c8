"""ConditionalEntropy against SciPy's entropy."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from keras_transfer.losses import ConditionalEntropy
from tests.contracts.loss_contract import LossContract
from tests.contracts.loss_contract import value_and_gradients


class TestConditionalEntropy(LossContract):
    def make(self, **kwargs):
        return ConditionalEntropy(**kwargs)

    def inputs(self):
        rng = np.random.default_rng(0)
        return np.ones((4, 2), "float32"), 3 * rng.normal(size=(8, 3)).astype("float32")

    def expected(self, source, target, constants):
        return entropy(softmax(target, axis=1), axis=1).mean()


def test_a_case_by_hand():
    # Entropies 0, log 2 and log 4 of four classes.
    p = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25]])
    loss = ConditionalEntropy(from_logits=False)
    assert abs(float(loss(None, p)) - np.log(2)) < 1e-6


def test_certain_logits_have_no_entropy():
    value, gradients = value_and_gradients(
        ConditionalEntropy(), np.zeros((2, 2), "float32"), np.float32([[1e4, -1e4]])
    )
    assert value == 0.0
    assert np.abs(gradients[1]).max() == 0.0


def test_probabilities_of_zero_have_finite_gradients():
    loss = ConditionalEntropy(from_logits=False)
    certain = np.eye(2, dtype="float32")
    value, (_, gradient) = value_and_gradients(loss, certain, certain)
    assert value == 0.0
    assert np.isfinite(gradient).all()


def test_probabilities_give_the_same_as_logits():
    _, logits = TestConditionalEntropy().inputs()
    of_probabilities = ConditionalEntropy(from_logits=False)(
        None, softmax(logits, axis=1)
    )
    np.testing.assert_allclose(
        of_probabilities, ConditionalEntropy()(None, logits), rtol=1e-5
    )


def test_one_class_raises():
    with pytest.raises(ValueError, match=r"\(4, 1\).* at least 2 columns"):
        ConditionalEntropy()(None, np.ones((4, 1)))
