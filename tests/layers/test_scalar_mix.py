"""ScalarMix: the formula, its limits, masks, left-out tensors and normalization."""

import keras
import numpy as np
import pytest

from keras_transfer.layers import ScalarMix
from tests.contracts.compare import arrays
from tests.contracts.layer_contract import LayerContract

COUNT = 3


def states(count=COUNT, shape=(8, 5, 4), seed=0):
    random = np.random.default_rng(seed)
    return [random.normal(size=shape).astype("float32") for _ in range(count)]


def built(scores=(0.3, -1.0, 2.0), gamma=1.5, **kwargs):
    """Return a layer for three tensors with these weights."""
    layer = ScalarMix(**kwargs)
    layer.build([(None, 5, 4)] * len(scores))
    layer.scores.assign(scores)
    layer.gamma.assign(gamma)
    return layer


def value(x):
    return arrays(x)[0]


class TestScalarMix(LayerContract):
    mask = None  # of a list: tested below

    def make(self):
        return ScalarMix(layer_norm=True, regularizer="l2")

    def inputs(self):
        return states()


def test_formula_of_numpy():
    shares = np.exp([0.3, -1.0, 2.0])
    shares /= shares.sum()
    expected = 1.5 * np.tensordot(shares, np.stack(states()), 1)
    layer = built()
    np.testing.assert_allclose(value(layer(states())), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.block_weights, shares, rtol=1e-6)


def test_a_case_by_hand():
    # softmax(0, ln 3) = 1/4, 3/4; 2 * (8 / 4 + 3 * 4 / 4) = 10.
    layer = built([0.0, np.log(3.0)], gamma=2.0)
    assert value(layer([np.full((1, 1), 8.0), np.full((1, 1), 4.0)]))[0, 0] == 10.0


def test_equal_weights_are_the_mean_and_one_large_score_is_one_block():
    mean = np.mean(states(), axis=0)
    np.testing.assert_allclose(value(ScalarMix()(states())), mean, rtol=1e-5, atol=1e-6)
    one = value(built([0.0, 0.0, 200.0], gamma=1.0)(states()))
    np.testing.assert_array_equal(one, states()[2])


def test_one_tensor_and_a_tuple():
    x = states(1)
    np.testing.assert_allclose(value(ScalarMix()(tuple(x))), x[0], rtol=1e-6)


def test_normalization_has_no_scale_and_keeps_each_position():
    x = states()
    scaled = [x[0] * 100 + 7, x[1], x[2] * 0.5]
    layer = built(layer_norm=True)
    np.testing.assert_allclose(
        value(layer(scaled)), value(layer(x)), rtol=1e-3, atol=1e-4
    )
    expected = (x[0] - x[0].mean(-1, keepdims=True)) / x[0].std(-1, keepdims=True)
    one = built([200.0, 0.0, 0.0], gamma=1.0, layer_norm=True)
    np.testing.assert_allclose(value(one(x)), expected, rtol=2e-3, atol=1e-3)


def test_left_out_tensors_in_training():
    """Each output is the mean of a subset, and all subsets appear."""
    x = [np.full((1, 1), 2.0**n, "float32") for n in range(3)]
    layer = ScalarMix(0.5, seed=1)
    drawn = [float(value(layer(x, training=True))[0, 0]) for _ in range(100)]
    subsets = [[1], [2], [4], [1, 2], [1, 4], [2, 4], [1, 2, 4]]
    expected = sorted(np.mean(each) for each in subsets)
    found = sorted({round(each, 4) for each in drawn})
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert value(layer(x, training=False))[0, 0] == pytest.approx(7 / 3)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_sums_in_float32(dtype):
    layer = ScalarMix(dtype=dtype)
    x = [np.full((1, 2), 60000.0, "float16")] * 8
    out = layer([keras.ops.convert_to_tensor(each) for each in x])
    assert keras.backend.standardize_dtype(out.dtype) == dtype.removeprefix("mixed_")
    np.testing.assert_allclose(np.float32(value(out)), 60000.0, rtol=1e-2)
    assert layer.scores.dtype == layer.gamma.dtype == "float32"


def test_masks_are_kept():
    first = np.array([[1, 2, 0, 0]])
    embedded = keras.layers.Embedding(5, 3, mask_zero=True)(first)
    other = keras.layers.Embedding(5, 3, mask_zero=True)(np.array([[0, 2, 1, 0]]))
    plain = np.ones((1, 4, 3), "float32")

    def mask(*tensors):
        return getattr(ScalarMix()([*tensors]), "_keras_mask", None)

    same = [[True, True, False, False]]
    np.testing.assert_array_equal(value(mask(embedded, embedded)), same)
    np.testing.assert_array_equal(value(mask(plain, embedded)), same)
    both = [[False, True, False, False]]
    np.testing.assert_array_equal(value(mask(embedded, other)), both)
    assert mask(plain, plain) is None


def test_the_regularizer_pulls_to_equal_weights():
    layer = built(regularizer=keras.regularizers.L2(0.1))
    expected = 0.1 * (0.3**2 + 1 + 4)
    assert float(value(layer.losses[0])) == pytest.approx(expected, rel=1e-5)


def test_wrong_inputs_raise():
    x = states()
    with pytest.raises(TypeError, match="takes a list of tensors, but got a tensor"):
        ScalarMix()(x[0])
    with pytest.raises(TypeError, match="got 2 named tensors"):
        ScalarMix()({"a": x[0], "b": x[1]})
    with pytest.raises(ValueError, match=r"tensor 1 has \(8, 3\)"):
        ScalarMix()([np.ones((8, 4)), np.ones((8, 3))])
    with pytest.raises(ValueError, match="empty list"):
        ScalarMix()([])
    layer = ScalarMix()
    with pytest.raises(ValueError, match="was not called yet"):
        print(layer.block_weights)
    layer(x)
    with pytest.raises(ValueError, match="got 2 tensors, but it was built for 3"):
        layer(x[:2])


@pytest.mark.parametrize("rate", [-0.1, 1.0, "0.1", None, True])
def test_wrong_rates_raise(rate):
    with pytest.raises(ValueError, match="layer_dropout"):
        ScalarMix(rate)
