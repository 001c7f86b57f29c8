"""CORAL against NumPy's covariance."""

import numpy as np
import pytest

from keras_transfer.losses import CORAL
from tests.contracts.loss_contract import LossContract


class TestCORAL(LossContract):
    fewest_rows = 2

    def make(self, **kwargs):
        return CORAL(**kwargs)

    def inputs(self):
        rng = np.random.default_rng(0)
        source = rng.normal(size=(6, 3)).astype("float32")
        return source, rng.normal(1, 2, size=(8, 3)).astype("float32")

    def expected(self, source, target, constants):
        difference = np.cov(source, rowvar=False) - np.cov(target, rowvar=False)
        return np.linalg.norm(difference, "fro") ** 2 / (4 * source.shape[1] ** 2)


def test_a_case_by_hand():
    # Covariances [[2, 2], [2, 2]] and [[0, 0], [0, 2]]: (4 + 4 + 4 + 0) / 16.
    source, target = np.array([[0, 0], [2, 2]]), np.array([[7, 0], [7, 2]])
    assert float(CORAL()(source, target)) == 0.75


def test_ignores_the_means():
    x = np.random.default_rng(0).normal(size=(6, 3))
    assert float(CORAL()(x, x + 100)) < 1e-8


def test_a_large_mean_loses_no_digits():
    # E[x x^T] - m m^T would lose all digits.
    source, target = TestCORAL().inputs()
    moved = CORAL()(source + 1000, target + 1000)
    np.testing.assert_allclose(moved, CORAL()(source, target), rtol=1e-3)


def test_one_row_has_no_covariance():
    with pytest.raises(ValueError, match=r"target .*\(1, 3\).* at least 2 rows"):
        CORAL()(np.ones((4, 3)), np.ones((1, 3)))


def test_features_of_different_sizes_raise():
    with pytest.raises(ValueError, match=r"\(4, 3\) and target .*\(4, 5\)"):
        CORAL()(np.ones((4, 3)), np.ones((4, 5)))
