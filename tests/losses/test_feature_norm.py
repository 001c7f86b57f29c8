"""FeatureNorm: tests of the gradient, because the value is a constant."""

import numpy as np

from keras_transfer.losses import FeatureNorm
from tests.contracts.loss_contract import LossContract
from tests.contracts.loss_contract import value_and_gradients


class TestFeatureNorm(LossContract):
    bad_arguments = (
        (dict(step=0), "step=0"),
        (dict(step=-1.5), "step=-1.5"),
        (dict(step=float("inf")), "step=inf"),
    )

    def make(self, **kwargs):
        return FeatureNorm(**kwargs)

    def inputs(self):
        rng = np.random.default_rng(0)
        source = rng.normal(size=(6, 3)).astype("float32")
        return source, rng.normal(1, 2, size=(8, 3)).astype("float32")

    def constants(self, source, target):
        return np.linalg.norm(source, axis=1), np.linalg.norm(target, axis=1)

    def expected(self, source, target, constants):
        return sum(
            np.mean((np.linalg.norm(features, axis=1) - before - 1) ** 2)
            for features, before in zip((source, target), constants, strict=True)
        )


def test_a_case_by_hand():
    # Two rows: -2 step f / ||f|| / 2, which is 0 for the row of zeros.
    features = np.float32([[3, 4], [0, 0]])
    value, gradients = value_and_gradients(FeatureNorm(step=0.5), features, features)
    assert value == 0.5
    for gradient in gradients:
        np.testing.assert_allclose(gradient, [[-0.3, -0.4], [0, 0]], atol=1e-7)


def test_a_gradient_step_increases_all_norms():
    source, target = TestFeatureNorm().inputs()
    _, gradients = value_and_gradients(FeatureNorm(), source, target)
    for rows, gradient in zip((source, target), gradients, strict=True):
        longer = np.linalg.norm(rows - gradient, axis=1) - np.linalg.norm(rows, axis=1)
        np.testing.assert_allclose(longer, 2 / len(rows), rtol=1e-4)
