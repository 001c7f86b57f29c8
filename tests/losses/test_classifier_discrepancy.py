"""ClassifierDiscrepancy against NumPy."""

import numpy as np
import pytest
from scipy.special import softmax

from keras_transfer.losses import ClassifierDiscrepancy
from tests.contracts.loss_contract import LossContract


class TestClassifierDiscrepancy(LossContract):
    def make(self, **kwargs):
        return ClassifierDiscrepancy(**kwargs)

    def inputs(self):
        rng = np.random.default_rng(0)
        return tuple(rng.normal(size=(2, 8, 3)).astype("float32"))

    def expected(self, source, target, constants):
        difference = softmax(source, axis=1) - softmax(target, axis=1)
        return np.mean(np.mean(np.abs(difference), axis=1))


def test_a_case_by_hand():
    first = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    second = np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
    loss = ClassifierDiscrepancy(from_logits=False)
    assert abs(float(loss(first, second)) - (0.5 + 2.0) / 6) < 1e-6


def test_is_symmetric_and_zero_for_one_head():
    first, second = TestClassifierDiscrepancy().inputs()
    loss = ClassifierDiscrepancy()
    assert float(loss(first, second)) == float(loss(second, first)) > 0
    assert float(loss(first, first)) == 0.0


def test_other_examples_or_classes_raise():
    loss = ClassifierDiscrepancy()
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(5, 3\)"):
        loss(np.ones((4, 3)), np.ones((5, 3)))
    with pytest.raises(ValueError, match=r"\(4, 1\).* at least 2 columns"):
        loss(np.ones((4, 1)), np.ones((4, 1)))
