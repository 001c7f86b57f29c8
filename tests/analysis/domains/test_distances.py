"""Distances between domains, compared with closed forms and with scikit-learn."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import cross_val_score

import keras_transfer as kt
from keras_transfer.analysis.domains.classifier import balanced_error

proxy_a_distance = kt.analysis.proxy_a_distance
mmd_test = kt.analysis.mmd_test
frechet_distance = kt.analysis.frechet_distance
EACH = (proxy_a_distance, mmd_test, frechet_distance)


def normal(count=100, size=3, seed=0, shift=0.0, scale=1.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, size)) * scale + shift


# Proxy A-distance.


def test_proxy_of_separable_domains_is_2():
    assert proxy_a_distance(normal(), normal(seed=1, shift=20)) == 2.0


def test_proxy_of_the_same_domain_is_near_0_and_not_below():
    found = [
        proxy_a_distance(normal(seed=s), normal(seed=s + 50), seed=s) for s in range(8)
    ]
    assert min(found) >= 0 and max(found) < 0.5
    assert min(found) == 0  # in half of the cases the error is above 50 % by chance


def test_proxy_of_identical_points_is_0():
    assert proxy_a_distance(np.ones((9, 2)), np.ones((7, 2))) == 0.0


def test_proxy_of_two_gaussians_matches_the_closed_form():
    # The best classifier of N(0, 1) and N(1, 1) has the error rate Phi(-1/2).
    error = 0.3085375
    found = proxy_a_distance(normal(4000, 1), normal(4000, 1, 1, shift=1.0))
    assert found == pytest.approx(2 * (1 - 2 * error), abs=0.06)


def test_proxy_matches_the_error_from_scikit_learn():
    source, target = normal(300), normal(300, seed=1, shift=0.7)
    x, y = np.concatenate([source, target]), np.repeat([0, 1], 300)
    accuracy = cross_val_score(LogisticRegression(), x, y, cv=5).mean()
    expected = 2 * (1 - 2 * (1 - accuracy))
    assert proxy_a_distance(source, target) == pytest.approx(expected, abs=0.1)


def test_proxy_of_unequal_sizes_is_near_0():
    # A classifier that always predicts the larger domain has an error of 1/11.
    assert proxy_a_distance(normal(1000), normal(100, seed=1)) < 0.3


def test_balanced_error_by_hand():
    # One of four source examples is on the wrong side, and one on the border.
    source, target = np.array([-1.0, -2, 3, 0]), np.array([1.0, -1])
    assert balanced_error(source, target) == (1.5 / 4 + 1 / 2) / 2


def test_proxy_is_repeatable():
    pair = normal(60), normal(60, seed=1, shift=0.5)
    assert proxy_a_distance(*pair, seed=3) == proxy_a_distance(*pair, seed=3)


# MMD.


def test_mmd_by_hand():
    # Distances 1 (twice), 2, 3 (three times), ...: see the sorted pairs below.
    source, target = np.array([[0.0], [1.0]]), np.array([[3.0], [4.0]])
    # Pairs: 1, 3, 4, 2, 3, 1: the median of the squares is (4 + 9) / 2.
    k = lambda d: np.exp(-(d**2) / (2 * 6.5))  # noqa: E731
    expected = k(1) + k(1) - 2 * (k(3) + k(4) + k(2) + k(3)) / 4
    found = mmd_test(source, target)
    assert found.mmd2 == pytest.approx(expected, rel=1e-12)
    # Two of the six ways to split four points give this discrepancy.
    assert found.p_value == pytest.approx(1 / 3, abs=0.06)


def test_mmd_matches_the_formula_with_a_kernel_of_scikit_learn():
    source, target = normal(31), normal(22, seed=1, shift=0.4)
    rows = np.concatenate([source, target])
    squares = np.square(rows[:, None] - rows).sum(-1)
    median = np.median(squares[np.triu_indices(len(rows), 1)])
    kernel = rbf_kernel(rows, gamma=1 / (2 * median))
    n, m = 31, 22
    xx = (kernel[:n, :n].sum() - n) / (n * (n - 1))
    yy = (kernel[n:, n:].sum() - m) / (m * (m - 1))
    expected = xx + yy - 2 * kernel[:n, n:].mean()
    found = mmd_test(source, target, permutations=3)
    assert found.mmd2 == pytest.approx(expected, rel=1e-9)


def test_p_values_are_uniform_without_a_shift():
    values = np.array(
        [
            mmd_test(normal(25, seed=s), normal(20, seed=s + 500), permutations=99)
            for s in range(200)
        ]
    )[:, 1]
    shares = np.mean(values[:, None] <= [0.05, 0.25, 0.5, 0.75], axis=0)
    np.testing.assert_allclose(shares, [0.05, 0.25, 0.5, 0.75], atol=0.1)
    assert shares[0] < 0.11  # the test does not reject too often


def test_p_value_is_smallest_under_a_shift():
    found = mmd_test(normal(), normal(seed=1, shift=1), permutations=199)
    assert found.p_value == 1 / 200


def test_mmd_detects_a_change_of_scale():
    source, target = normal(300), normal(300, seed=1, scale=2)
    assert mmd_test(source, target).p_value < 0.01
    assert proxy_a_distance(source, target) < 0.3


def test_mmd_of_identical_points_is_0():
    found = mmd_test(np.ones((5, 2)), np.ones((4, 2)))
    assert found == (pytest.approx(0, abs=1e-12), 1.0)


def test_mmd_of_mostly_equal_points_is_finite():
    source, target = np.zeros((20, 2)), np.zeros((20, 2))
    target[0] = 1
    found = mmd_test(source, target)
    assert np.isfinite(found).all() and found.p_value > 0.9


@pytest.mark.parametrize("scale", [1e-90, 1e90])
def test_mmd_does_not_depend_on_the_scale(scale):
    pair = normal(30), normal(30, seed=1, shift=1)
    found = mmd_test(pair[0] * scale, pair[1] * scale)
    assert found.mmd2 == pytest.approx(mmd_test(*pair).mmd2, rel=1e-9)


@pytest.mark.parametrize("permutations", [0, -1, 2.5, True])
def test_bad_permutations_raise(permutations):
    with pytest.raises(ValueError, match="permutations"):
        mmd_test(normal(), normal(), permutations=permutations)


def test_mmd_of_too_many_examples_raises():
    with pytest.raises(ValueError, match="random sample"):
        mmd_test(np.zeros((9999, 1)), np.ones((2, 1)))


# Frechet.


def test_frechet_by_hand():
    # Means 0 and 3; variances 2 and 8: 9 + (sqrt 8 - sqrt 2)^2.
    source, target = np.array([[-1.0], [1.0]]), np.array([[1.0], [5.0]])
    assert frechet_distance(source, target) == pytest.approx(9 + 2, rel=1e-12)


def test_frechet_matches_the_formula_with_a_root_from_scipy():
    source, target = normal(50, 4), normal(40, 4, 1, shift=0.5, scale=[1, 2, 0.5, 3])
    first, second = np.cov(source.T), np.cov(target.T)
    gap = source.mean(0) - target.mean(0)
    root = sqrtm(first @ second).real
    expected = gap @ gap + np.trace(first + second - 2 * root)
    assert frechet_distance(source, target) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_two_gaussians_matches_the_closed_form():
    # For diagonal covariances: squared differences of means and of deviations.
    found = frechet_distance(normal(40_000, 2), normal(40_000, 2, 1, 1.0, [1.0, 3.0]))
    assert found == pytest.approx(2 + 4, rel=0.03)


def test_frechet_of_singular_covariances_is_real():
    # 6 examples of 40 features, and one feature that is constant.
    source, target = normal(6, 40), normal(5, 40, 1)
    source[:, 0] = target[:, 0] = 7
    found = frechet_distance(source, target)
    first, second = np.cov(source.T), np.cov(target.T)
    gap = source.mean(0) - target.mean(0)
    values = np.linalg.eigvals(first @ second).real
    expected = (
        gap @ gap + np.trace(first + second) - 2 * np.sqrt(np.maximum(values, 0)).sum()
    )
    assert found == pytest.approx(expected, rel=1e-6) and found > 0


def test_frechet_of_equal_features_is_0():
    assert frechet_distance(normal(9, 30), normal(9, 30)) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(np.ones((3, 2)), np.ones((3, 2))) == 0.0


def test_frechet_is_symmetric():
    pair = normal(20, 5), normal(30, 5, 1, 1)
    assert frechet_distance(*pair) == pytest.approx(frechet_distance(*pair[::-1]))


# Features of all shapes.


@pytest.mark.parametrize("distance", EACH)
def test_images_are_flattened(distance):
    source, target = normal(20, 12), normal(20, 12, 1, 1)
    flat = distance(source, target)
    assert distance(source.reshape(20, 2, 2, 3), target.reshape(20, 2, 2, 3)) == flat
    narrow = source.astype("float32"), target.astype("float32")
    np.testing.assert_allclose(distance(*narrow), flat, rtol=1e-4)


@pytest.mark.parametrize("distance", EACH)
@pytest.mark.parametrize(
    "source, message",
    [
        (normal(20, 4), r"\(4,\) in `source`, but \(3,\) in `target`"),
        (normal(20, 3).reshape(20, 3, 1), "same network"),
        (np.zeros((0, 3)), "`source` has the shape"),
        (normal(1), "1 example"),
        (np.zeros((20, 0)), "one feature"),
        (np.zeros(20), "reshape"),
        (np.full((20, 3), np.nan), "60 of 60 values of `source` are NaN"),
        (np.full((20, 3), np.inf), "infinite"),
        (np.full((20, 3), 1e200), "too large"),
        (np.full((20, 3), "a"), "array of numbers"),
    ],
)
def test_bad_features_raise(distance, source, message):
    with pytest.raises(ValueError, match=message):
        distance(source, normal(20))
