"""DomainClassification against NumPy, with and without weights of the examples."""

import keras
import numpy as np
import pytest

from keras_transfer.losses import DomainClassification
from tests.contracts.compute import ON_TENSORFLOW
from tests.contracts.loss_contract import LossContract
from tests.contracts.loss_contract import value_and_gradients


def cross_entropy(logits, label):
    """Return the cross-entropy of each logit."""
    probability = 1 / (1 + np.exp(-logits.ravel()))
    return -np.log(probability if label else 1 - probability)


class TestDomainClassification(LossContract):
    def make(self, **kwargs):
        return DomainClassification(**kwargs)

    def inputs(self):
        rng = np.random.default_rng(0)
        source = rng.normal(size=(6, 1)).astype("float32")
        return source, rng.normal(size=(8, 1)).astype("float32")

    def expected(self, source, target, constants):
        of_source = cross_entropy(source, 0).mean()
        return 0.5 * (of_source + cross_entropy(target, 1).mean())


class TestWeightedDomainClassification(LossContract):
    def make(self, **kwargs):
        return DomainClassification(**kwargs)

    def inputs(self):
        rng = np.random.default_rng(0)

        def domain(rows):
            logits = rng.normal(size=(rows, 1)).astype("float32")
            return logits, rng.uniform(1, 2, size=rows).astype("float32")

        return domain(6), domain(8)

    def expected(self, source, target, constants):
        def half(logits, weights, label):
            weights = weights / weights.mean()
            return 0.5 * np.mean(weights * cross_entropy(logits, label))

        return half(*source, 0) + half(*target, 1)

    def changes(self):
        changes = super().changes()
        if not ON_TENSORFLOW:
            # JAX squares the sum of the weights in the gradient, which gives 0.
            del changes["tiny"]
        return changes


def test_a_case_by_hand():
    # Probabilities of "target": 1/4 and 1/2 for the source, 3/4 for the target.
    source, target = np.array([[-np.log(3)], [0.0]]), np.array([[np.log(3)]])
    of_source = (np.log(4 / 3) + np.log(2)) / 2
    value = DomainClassification()(source, target)
    assert abs(float(value) - (of_source + np.log(4 / 3)) / 2) < 1e-6


def test_is_keras_binary_cross_entropy():
    source, target = TestDomainClassification().inputs()
    keras_loss = keras.losses.BinaryCrossentropy(from_logits=True)
    halves = keras_loss(np.zeros((6, 1)), source), keras_loss(np.ones((8, 1)), target)
    value = DomainClassification()(source, target)
    np.testing.assert_allclose(value, sum(map(float, halves)) / 2, rtol=1e-6)


def test_equal_weights_equal_no_weights():
    source, target = TestDomainClassification().inputs()
    weighted = DomainClassification()((source, np.full((6, 1), 7.0)), target[:, 0])
    np.testing.assert_allclose(
        weighted, DomainClassification()(source, target), rtol=1e-6
    )


def test_weights_select_examples():
    source, target = TestDomainClassification().inputs()
    first = np.eye(6)[0]
    chosen = DomainClassification()((source, first), target)
    alone = DomainClassification()(source[:1], target)
    np.testing.assert_allclose(chosen, alone, rtol=1e-6)


def test_weights_of_zero_remove_a_domain():
    source, target = TestDomainClassification().inputs()
    value, gradients = value_and_gradients(
        DomainClassification(), (source, np.zeros(6, "float32")), target
    )
    assert abs(value - cross_entropy(target, 1).mean() / 2) < 1e-6
    assert all(np.isfinite(each).all() for each in gradients)


def test_a_certain_but_wrong_classifier_has_a_finite_loss():
    far = np.full((2, 1), 1e4, "float32")
    value, gradients = value_and_gradients(DomainClassification(), far, -far)
    assert value == 1e4
    np.testing.assert_allclose(gradients[0], 0.25)


def test_shapes_that_do_not_fit_raise():
    source, target = TestDomainClassification().inputs()
    with pytest.raises(ValueError, match=r"target logits .*\(8, 2\)"):
        DomainClassification()(source, np.ones((8, 2)))
    with pytest.raises(ValueError, match="6 logits, but 5 weights"):
        DomainClassification()((source, np.ones(5)), target)
    with pytest.raises(ValueError, match="source has 3 parts"):
        DomainClassification()((source, source, source), target)
    with pytest.raises(ValueError, match="source has 0 parts"):
        DomainClassification()(None, target)
