"""JointMMD against sums over all pairs in NumPy."""

import numpy as np
import pytest

from keras_transfer.losses import JointMMD
from keras_transfer.losses import MMD
from tests.contracts.loss_contract import LossContract
from tests.losses.test_mmd import gaussian
from tests.losses.test_mmd import mean_distance
from tests.losses.test_mmd import mmd
from tests.losses.test_mmd import statistics


class TestJointMMD(LossContract):
    fewest_rows = 2
    bad_arguments = (
        (dict(scales=(-1.0,)), "-1.0"),
        (dict(probability_bandwidth=0), "probability_bandwidth=0"),
        (dict(probability_bandwidth=float("nan")), "probability_bandwidth=nan"),
    )

    def make(self, **kwargs):
        return JointMMD(**kwargs)

    def inputs(self):
        rng = np.random.default_rng(0)

        def domain(rows, mean):
            features = rng.normal(mean, 1, size=(rows, 3))
            classes = rng.dirichlet([0.5, 0.5, 0.5], size=rows)
            return features.astype("float32"), classes.astype("float32")

        return domain(6, 0), domain(8, 1)

    def constants(self, source, target):
        return mean_distance(source[0], target[0])

    def expected(self, source, target, constants):
        def kernel(x, y):
            squares = np.sum((x[1] - y[1]) ** 2)
            return gaussian(x[0], y[0], constants) * np.exp(-squares / 1.68)

        pairs = [list(zip(*domain, strict=True)) for domain in (source, target)]
        return mmd(*pairs, kernel)


def test_a_case_by_hand():
    # The features are equal. The probabilities of the domains have a distance of 2.
    x, p = np.zeros((2, 1)), np.array([[1.0, 0.0], [1.0, 0.0]])
    loss = JointMMD(probability_bandwidth=2.0)
    assert abs(float(loss((x, p), (x, p[:, ::-1]))) - (2 - 2 * np.exp(-1.0))) < 1e-6


def test_equal_predictions_give_the_mmd_of_the_features():
    (source, _), (target, _) = TestJointMMD().inputs()
    joint = JointMMD()((source, np.full((6, 2), 0.5)), (target, np.full((8, 2), 0.5)))
    np.testing.assert_allclose(joint, MMD()(source, target), rtol=1e-5)


@statistics
def test_detects_swapped_classes_that_mmd_does_not():
    x = np.random.default_rng(0).normal(size=(20, 2))
    p = np.eye(2)[(x[:, 0] > 0).astype(int)]
    same, swapped = JointMMD()((x, p), (x, p)), JointMMD()((x, p), (x, 1 - p))
    assert float(swapped) > float(same) + 0.1


def test_inputs_that_are_not_pairs_raise():
    (source, classes), target = TestJointMMD().inputs()
    with pytest.raises(ValueError, match="pair .features, probabilities"):
        JointMMD()(source, target)
    with pytest.raises(ValueError, match=r"\(6, 3\).*\(5, 3\)"):
        JointMMD()((source, classes[:5]), target)
