"""EmbeddingDropout: whole words are dropped, and their fraction is the rate."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.layer_contract import LayerContract

IDS = np.array([[0, 1, 2, 1], [2, 1, 0, 3]])


class TestEmbeddingDropout(LayerContract):
    mask = None  # the test below has a mask

    def make(self):
        return kt.layers.EmbeddingDropout(5, rate=0.0)

    def inputs(self):
        rng = np.random.default_rng(0)
        vectors = rng.normal(size=(8, 6, 4)).astype("float32")
        return [vectors, rng.integers(0, 5, size=(8, 6)).astype("int32")]


def test_a_word_is_dropped_everywhere_or_scaled_everywhere():
    layer = kt.layers.EmbeddingDropout(400, rate=0.25, seed=1)
    ids = np.tile(np.arange(400), (2, 3))
    vectors = np.random.default_rng(0).uniform(1, 2, (2, 1200, 3)).astype("float32")
    kept = array(layer([vectors, ids], training=True)) / vectors
    by_word = kept.reshape(2 * 3, 400, 3)
    assert_close(by_word, np.broadcast_to(by_word[:1, :, :1], by_word.shape), 1e-5)
    assert set(np.unique(kept.round(4))) == {0.0, np.float32(4 / 3).round(4)}
    assert 0.18 < np.mean(by_word[0] == 0) < 0.32


def test_each_step_drops_other_words_and_inference_none():
    layer = kt.layers.EmbeddingDropout(100, rate=0.5)
    ids = np.arange(100)[None]
    vectors = np.ones((1, 100, 1), "float32")
    first, second = (array(layer([vectors, ids], training=True)) for _ in range(2))
    assert (first != second).any()
    assert_close(layer([vectors, ids]), vectors)


def test_mask_of_the_vectors_is_kept():
    embedding = keras.layers.Embedding(5, 3, mask_zero=True)
    y = kt.layers.EmbeddingDropout(5, rate=0.5)([embedding(IDS), IDS], training=True)
    assert_close(y._keras_mask, IDS != 0)


@pytest.mark.parametrize("rate", [-0.1, 1.0, "half", None])
def test_rate_out_of_range_raises(rate):
    with pytest.raises(ValueError, match="rate of values to drop"):
        kt.layers.EmbeddingDropout(5, rate)


def test_wrong_inputs_raise():
    layer = kt.layers.EmbeddingDropout(5, 0.5)
    with pytest.raises(TypeError, match="list of the vectors and the token ids"):
        layer(np.ones((2, 4, 3)))
    with pytest.raises(ValueError, match="ids must have the shape"):
        layer([np.ones((2, 4, 3)), np.ones((2, 5), int)])
    with pytest.raises(ValueError, match="size of the vocabulary"):
        kt.layers.EmbeddingDropout(0, 0.5)
