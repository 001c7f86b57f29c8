"""ClassConfusion against the paper's equations (1) to (7) in NumPy."""

import numpy as np
import pytest
from scipy.special import softmax

from keras_transfer.losses import ClassConfusion
from tests.contracts.loss_contract import LossContract


class TestClassConfusion(LossContract):
    bad_arguments = (
        (dict(temperature=0), "temperature=0"),
        (dict(temperature=-2.5), "temperature=-2.5"),
        (dict(temperature=float("nan")), "temperature=nan"),
    )

    def make(self, **kwargs):
        return ClassConfusion(**kwargs)

    def inputs(self):
        rng = np.random.default_rng(0)
        return np.ones((4, 2), "float32"), 3 * rng.normal(size=(8, 3)).astype("float32")

    def constants(self, source, target):
        y = softmax(target / 2.5, axis=1)
        weight = 1 + np.exp(np.sum(y * np.log(y), axis=1))
        return len(y) * weight / weight.sum()

    def expected(self, source, target, constants):
        y = softmax(target / 2.5, axis=1)
        confusion = np.zeros((3, 3))
        for j in range(3):
            for k in range(3):
                confusion[j, k] = y[:, j] @ np.diag(constants) @ y[:, k]
        confusion /= confusion.sum(axis=1, keepdims=True)
        return (confusion.sum() - np.trace(confusion)) / 3


def test_a_case_by_hand():
    # Rows (1, 0) with W = 2 and (1/2, 1/2) with W = 3/2, over their mean 7/4:
    # A = [[8/7 + 3/14, 3/14], [3/14, 3/14]]; off the diagonal 3/22 and 1/2.
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5]])
    loss = ClassConfusion(temperature=1, from_logits=False)
    assert abs(float(loss(None, probabilities)) - (3 / 22 + 1 / 2) / 2) < 1e-5


@pytest.mark.parametrize("num_classes", [2, 5])
def test_uniform_and_certain_predictions(num_classes):
    uniform = ClassConfusion()(None, np.zeros((7, num_classes)))
    assert abs(float(uniform) - (1 - 1 / num_classes)) < 1e-6
    certain = ClassConfusion()(None, 1000 * np.eye(num_classes))
    assert float(certain) == 0.0


def test_a_class_without_examples_is_not_confused():
    # Its row of the confusion is 0 / 0.
    certain = 1e4 * np.eye(3)[[0, 0, 1]]
    assert float(ClassConfusion()(None, certain)) == 0.0


def test_probabilities_give_the_same_as_logits():
    _, logits = TestClassConfusion().inputs()
    of_probabilities = ClassConfusion(from_logits=False)(None, softmax(logits, axis=1))
    np.testing.assert_allclose(
        of_probabilities, ClassConfusion()(None, logits), rtol=1e-5
    )


def test_source_is_ignored():
    source, target = TestClassConfusion().inputs()
    assert float(ClassConfusion()(None, target)) == float(
        ClassConfusion()(source, target)
    )


def test_one_class_raises():
    with pytest.raises(ValueError, match=r"\(4, 1\).* at least 2 columns"):
        ClassConfusion()(None, np.ones((4, 1)))
