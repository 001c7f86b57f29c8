"""MarginDisparity against NumPy."""

import numpy as np
import pytest
from scipy.special import softmax

from keras_transfer.losses import MarginDisparity
from tests.contracts.loss_contract import LossContract
from tests.contracts.loss_contract import value_and_gradients


class TestMarginDisparity(LossContract):
    bad_arguments = (
        (dict(margin=0), "margin=0"),
        (dict(margin=-1), "margin=-1"),
        (dict(margin=float("nan")), "margin=nan"),
    )

    def make(self, **kwargs):
        return MarginDisparity(**kwargs)

    def inputs(self):
        rng = np.random.default_rng(0)
        source = rng.normal(size=(2, 6, 3)).astype("float32")
        return tuple(source), tuple(rng.normal(size=(2, 8, 3)).astype("float32"))

    def expected(self, source, target, constants):
        def chosen(outputs, adversary):
            probabilities = softmax(adversary, axis=1)
            return probabilities[np.arange(len(outputs)), outputs.argmax(axis=1)]

        on_source = -np.log(chosen(*source)).mean()
        return 4 * on_source - np.log(1 - chosen(*target)).mean()


def test_a_case_by_hand():
    # The adversary gives class 1 a probability of 3/4. The classifier predicts class 1
    # on the source and class 0 on the target.
    adversary = np.log([[1.0, 3.0]])
    source = (np.array([[0.0, 1.0]]), adversary)
    target = (np.array([[1.0, 0.0]]), adversary)
    value = float(MarginDisparity(margin=2)(source, target))
    assert abs(value - (2 * -np.log(3 / 4) - np.log(3 / 4))) < 1e-6


def test_a_certain_adversary_has_exact_values_and_gradients():
    # For logits of 17 or more, 1 - softmax is 0 in float32 and its log is -inf.
    outputs = np.float32([[1, 0, 0]])
    adversary = np.float32([[100, 0, 0]])
    undecided = np.zeros((1, 3), "float32")
    value, gradients = value_and_gradients(
        MarginDisparity(margin=1), (outputs, undecided), (outputs, adversary)
    )
    assert abs(value - (np.log(3) + 100 - np.log(2))) < 1e-4
    np.testing.assert_allclose(gradients[3], [[1, -0.5, -0.5]], atol=1e-6)


def test_no_gradient_reaches_the_classifier():
    _, gradients = value_and_gradients(
        MarginDisparity(), *TestMarginDisparity().inputs()
    )
    reached = [np.abs(gradient).max() > 0 for gradient in gradients]
    assert reached == [False, True, False, True]


def test_shapes_that_do_not_fit_raise():
    source, target = TestMarginDisparity().inputs()
    with pytest.raises(ValueError, match="pair .outputs, adversary_outputs"):
        MarginDisparity()(source[0], target)
    with pytest.raises(ValueError, match=r"source .*\(6, 3\).*\(5, 3\)"):
        MarginDisparity()((source[0], source[1][:5]), target)
    fewer = tuple(x[:, :2] for x in target)
    with pytest.raises(ValueError, match="3 classes .* 2"):
        MarginDisparity()(source, fewer)
