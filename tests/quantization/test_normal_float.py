"""NF4 arrays: the published code book, and an independent oracle in NumPy."""

import numpy as np
import pytest

from keras_transfer.quantization.normal_float import BYTE_LEVELS
from keras_transfer.quantization.normal_float import LEVELS
from keras_transfer.quantization.normal_float import pack
from keras_transfer.quantization.normal_float import packed_shapes
from keras_transfer.quantization.normal_float import unpack

# `get_4bit_type("nf4")` in bitsandbytes/functional.py.
PUBLISHED = """
-1.0 -0.6961928009986877 -0.5250730514526367 -0.39491748809814453 -0.28444138169288635
-0.18477343022823334 -0.09105003625154495 0.0 0.07958029955625534 0.16093020141124725
0.24611230194568634 0.33791524171829224 0.44070982933044434 0.5626170039176941
0.7229568362236023 1.0
"""


def weights(shape=(48, 64), seed=0):
    return np.random.default_rng(seed).normal(0, 0.02, shape).astype("float32")


def oracle(weight, block_size, byte_levels):
    """Return indices and constants, one value at a time, in float64."""
    indices, constants = [], []
    levels = [float(np.float32(x)) for x in PUBLISHED.split()]
    flat = weight.ravel().tolist()
    for start in range(0, len(flat), block_size):
        block = flat[start : start + block_size]
        constant = max(abs(x) for x in block)
        constants.append(constant)
        for x in block:
            ratio = x / constant if constant else 0.0
            distances = [abs(ratio - level) for level in levels]
            indices.append(distances.index(min(distances)))
    offset = np.mean(np.array(constants, "float32"))
    centered = np.array(constants, "float32") - offset
    codes, scales = [], []
    for start in range(0, len(centered), 256):
        group = centered[start : start + 256]
        scales.append(np.abs(group).max())
        distances = np.abs(group[:, None] / scales[-1] - byte_levels[None, :])
        codes += distances.argmin(axis=1).tolist()
    return indices, constants, codes, scales, offset


def test_the_levels_are_the_published_ones():
    assert LEVELS.dtype == "float32"
    assert LEVELS.tolist() == [float(np.float32(x)) for x in PUBLISHED.split()]


def test_the_levels_are_quantiles_of_the_normal_distribution():
    stats = pytest.importorskip("scipy.stats")
    upper = stats.norm.ppf(np.linspace(0.9677083, 0.5, 9)[:-1])
    lower = -stats.norm.ppf(np.linspace(0.9677083, 0.5, 8)[:-1])
    own = np.sort([*upper, 0, *lower])
    np.testing.assert_allclose(LEVELS, own / own.max(), atol=1e-6)


def test_the_levels_of_a_byte():
    assert len(np.unique(BYTE_LEVELS)) == 256 and BYTE_LEVELS.dtype == "float32"
    # The largest decade has 64 parts of [0.1, 1], and the smallest has one.
    assert BYTE_LEVELS[-1] == 1 and BYTE_LEVELS[127] == 0
    np.testing.assert_allclose(BYTE_LEVELS[-2], 1 - 0.9 / 128, rtol=1e-6)
    np.testing.assert_allclose(BYTE_LEVELS[128], 0.55e-6, rtol=1e-6)
    # All have both signs, but 0 and 1.
    np.testing.assert_array_equal(-BYTE_LEVELS[:127][::-1], BYTE_LEVELS[128:-1])


@pytest.mark.parametrize("block_size", [16, 64])
def test_indices_and_constants_are_those_of_the_oracle(block_size):
    weight = weights((300, 64))
    packed = pack(weight, block_size)
    exact = pack(weight, block_size, double_quantization=False)
    indices, constants, codes, scales, offset = oracle(weight, block_size, BYTE_LEVELS)
    both = np.stack([packed.codes >> 4, packed.codes & 15], -1)
    assert both.ravel().tolist() == indices
    np.testing.assert_array_equal(packed.codes, exact.codes)
    np.testing.assert_array_equal(exact.constants, np.array(constants, "float32"))
    assert packed.constants.tolist() == codes
    np.testing.assert_array_equal(packed.scales, np.array(scales, "float32"))
    assert packed.offset == offset


def test_a_block_by_hand():
    packed = pack(np.array([0.5, -1.0, 2.0, 0.0]), 4, double_quantization=False)
    # 0.25 is nearest to 0.2461 (index 10), -0.5 to -0.5251 (2), 1 is 15, 0 is 7.
    assert packed.codes.tolist() == [[10 << 4 | 2, 15 << 4 | 7]]
    assert packed.constants.tolist() == [2.0]
    np.testing.assert_array_equal(
        unpack(packed), [[2 * LEVELS[10], 2 * LEVELS[2], 2, 0]]
    )


@pytest.mark.parametrize("double", [True, False])
def test_blocks_of_zeros_stay_zero(double):
    weight = weights((8, 64))
    weight[2:4] = 0
    values = unpack(pack(weight, 64, double)).reshape(weight.shape)
    assert (values[2:4] == 0).all() and np.isfinite(values).all()
    assert (unpack(pack(np.zeros((4, 64)), 64, double)) == 0).all()


def test_the_error_of_normal_weights():
    """The known relative error of NF4, and nearly none from the second rounding."""
    weight = weights((512, 512))
    errors = [
        np.linalg.norm(unpack(pack(weight, 64, double)).ravel() - weight.ravel())
        / np.linalg.norm(weight)
        for double in (False, True)
    ]
    assert 0.09 < errors[0] < 0.1
    assert abs(errors[1] - errors[0]) < 5e-4


def test_the_bits_of_a_weight():
    weight = weights((1024, 1024))
    arrays = pack(weight).arrays()
    bits = 8 * sum(each.nbytes for each in arrays.values()) / weight.size
    assert abs(bits - (4 + 8 / 64 + 32 / (64 * 256))) < 1e-4
    shapes = packed_shapes(weight.size, 64, True)
    assert {k: (x.shape, x.dtype.name) for k, x in arrays.items()} == shapes
    assert packed_shapes(128, 64, False)["constants"] == ((2,), "float32")
