"""MMD against sums over all pairs in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.losses import MMD
from tests.contracts.compute import compiled
from tests.contracts.compute import tensorflow_only
from tests.contracts.compute import tensors
from tests.contracts.loss_contract import LossContract

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)


def mean_distance(source, target):
    """Return the mean squared distance over all pairs of two different rows."""
    rows = [*source, *target]
    pairs = [
        np.sum((rows[i] - rows[j]) ** 2)
        for i in range(len(rows))
        for j in range(len(rows))
        if i != j
    ]
    return np.mean(pairs)


def mmd(source, target, kernel):
    """Return the unbiased estimate, pair by pair; `kernel` gets the indices of rows."""
    n, m = range(len(source)), range(len(target))
    within = [kernel(source[i], source[j]) for i in n for j in n if i != j]
    other = [kernel(target[i], target[j]) for i in m for j in m if i != j]
    across = [kernel(source[i], target[j]) for i in n for j in m]
    return np.mean(within) + np.mean(other) - 2 * np.mean(across)


def gaussian(x, y, width):
    """Return the mean of the Gaussians of all scales."""
    square = np.sum((x - y) ** 2)
    return np.mean([np.exp(-square / (scale * width)) for scale in SCALES])


statistics = tensorflow_only("the contract shows the numbers on JAX")


class TestMMD(LossContract):
    fewest_rows = 2
    bad_arguments = (
        (dict(scales=()), r"scales is \(\)"),
        (dict(scales="12"), "scales is '12'"),
        (dict(scales=(1, 0)), "scale=0"),
        (dict(scales=(float("inf"),)), "inf"),
        (dict(scales=3.0), "3.0"),
    )

    def make(self, **kwargs):
        return MMD(**kwargs)

    def inputs(self):
        rng = np.random.default_rng(0)
        source = rng.normal(size=(6, 3)).astype("float32")
        return source, rng.normal(1, 2, size=(8, 3)).astype("float32")

    def constants(self, source, target):
        return mean_distance(source, target)

    def expected(self, source, target, constants):
        return mmd(source, target, lambda x, y: gaussian(x, y, constants))


def test_a_case_by_hand():
    # Squared distances: 0 within, 4 across. 8 of 12 pairs are across: mean 8/3.
    source, target = np.zeros((2, 1)), np.full((2, 1), 2.0)
    loss = MMD(scales=[1.5])
    assert abs(float(loss(source, target)) - (2 - 2 * np.exp(-1.0))) < 1e-6


def test_identical_rows_have_no_discrepancy():
    x = np.full((4, 3), 0.1)
    assert float(MMD()(x, x[:3])) == 0.0


@statistics
def test_is_unbiased():
    rng = np.random.default_rng(0)
    loss = compiled(MMD(scales=[1.0]), jit_compile=False)  # for speed
    values = [
        float(
            loss(
                tensors(rng.normal(size=(4, 2))),
                tensors(rng.normal(size=(6, 2))),
            )
        )
        for _ in range(200)
    ]
    # The biased estimate is about 0.2 here.
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200) + 0.01
    assert min(values) < 0


@statistics
def test_detects_the_mean_and_the_spread():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 40, 2))
    same = float(MMD()(x, y))
    assert float(MMD()(x, y + 1)) > same + 0.05
    assert float(MMD()(x, 4 * y)) > same + 0.05


def test_does_not_depend_on_the_unit():
    source, target = TestMMD().inputs()
    scaled = MMD()(1000 * source, 1000 * target)
    np.testing.assert_allclose(scaled, MMD()(source, target), rtol=1e-4)


def test_a_far_origin_loses_no_digits():
    # Next to squares of 1000, distances of 1 would lose their digits.
    source, target = TestMMD().inputs()
    moved = MMD()(source + 1000, target + 1000)
    np.testing.assert_allclose(moved, MMD()(source, target), rtol=1e-3)


def test_one_row_has_no_pairs():
    with pytest.raises(ValueError, match=r"source .*\(1, 3\).* at least 2 rows"):
        MMD()(np.ones((1, 3)), np.ones((4, 3)))


@tensorflow_only("JAX knows the size of each batch")
@pytest.mark.parametrize("rows", [(1, 4), (4, 1), (1, 1)])
def test_one_row_with_an_unknown_batch_size_has_no_discrepancy(rows):
    loss = tf.function(MMD(), input_signature=[tf.TensorSpec((None, 2))] * 2)
    source, target = (tf.random.normal((count, 2)) for count in rows)
    assert float(loss(source, target)) == 0.0
    assert float(loss(tf.zeros((4, 2)), tf.ones((4, 2)))) > 0.0
