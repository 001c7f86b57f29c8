"""Features of texts are the same without padding, in the order of the data."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer.backbones import feature_cache
from keras_transfer.backbones.short_texts import ShortTexts
from tests import tiny
from tests.contracts.compare import assert_close

LENGTHS = [3, 12, 5, 4, 3, 8, 3, 3, 7, 4, 6]
Y = np.arange(len(LENGTHS))


def tokens(lengths=LENGTHS, width=12):
    ids = np.random.default_rng(0).integers(1, 64, (len(lengths), width))
    mask = np.arange(width) < np.array(lengths)[:, None]
    x = {"token_ids": ids * mask, "segment_ids": 0 * ids, "padding_mask": mask}
    return {key: array.astype("int32") for key, array in x.items()}


def batches(size=4):
    parts = [slice(start, start + size) for start in range(0, len(Y), size)]
    return [{key: x[part] for key, x in tokens().items()} for part in parts]


def network(pooling="mean"):
    keras.utils.set_random_seed(0)
    return kt.backbones.features(tiny.bert(num_layers=1), pooling)


class Seen:
    """A network that notes the shape of each batch."""

    def __init__(self, network):
        self.network = network
        self.shapes = []

    def __call__(self, x):
        self.shapes.append(x["token_ids"].shape)
        return self.network(x, training=False)


@pytest.mark.parametrize("pooling", ["mean", "last", "pooled"])
def test_features_are_those_of_the_padded_texts_in_their_order(pooling):
    model = network(pooling)
    found = ShortTexts(model, Seen(model)).features(batches())
    assert [len(each) for each in found] == [4, 4, 3]
    expected = model(tokens(), training=False)
    assert_close(np.concatenate(found), expected, 1e-6)


def test_batches_may_be_padded_to_several_lengths():
    model = network()
    pieces = [tokens([3, 12]), tokens([4, 3, 7], 9), tokens([8], 12)]
    found = ShortTexts(model, Seen(model)).features(pieces)
    for each, piece in zip(found, pieces, strict=True):
        assert_close(each, model(piece, training=False), 1e-6)


def test_each_batch_is_as_long_as_its_longest_text():
    seen = Seen(network())
    texts = ShortTexts(seen.network, seen)
    texts.features(batches())
    # The first batch is computed in both ways.
    assert seen.shapes == [(4, 3), (4, 12), (4, 6), (3, 12)]
    texts.features(batches())
    assert seen.shapes[4:] == [(4, 3), (4, 6), (3, 12)]


def test_lengths_are_powers_of_two_where_each_is_compiled():
    seen = Seen(network())
    texts = ShortTexts(seen.network, seen, powers=True)
    # tiny.bert() has positions for 12 tokens.
    seen.network = lambda x, training: np.ones((len(x["token_ids"]), 2))
    for length in (3, 4, 9, 20, 33, 12):
        texts.features([tokens([length], 40)])
    assert {shape[1] for shape in seen.shapes} == {8, 16, 32, 40}


def test_a_network_that_reads_padding_gets_all_of_it():
    names = ("token_ids", "padding_mask")
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
    x = keras.layers.Embedding(64, 5)(inputs["token_ids"])
    x = keras.layers.GlobalAveragePooling1D()(x)
    x = x + keras.ops.cast(inputs["padding_mask"][:, :1], "float32")
    model = keras.Model(inputs, x)
    batch = {name: tokens()[name] for name in names}
    assert ShortTexts.serves(model, batch)
    (found,) = ShortTexts(model, Seen(model)).features([batch])
    assert_close(found, model(batch), 1e-6)


def test_padding_on_the_left_is_kept():
    model = network("first")
    x = {key: array[:, ::-1] for key, array in tokens().items()}
    seen = Seen(model)
    (found,) = ShortTexts(model, seen).features([x])
    assert {shape[1] for shape in seen.shapes} == {12}
    assert_close(found, model(x, training=False), 1e-6)


def test_what_cannot_be_cut_is_not_served():
    model, x = network(), tokens()
    assert ShortTexts.serves(model, x)
    assert not ShortTexts.serves(tiny.bert(num_layers=1), x)  # rows of tokens come out
    assert not ShortTexts.serves(model, x | {"token_ids": x["token_ids"][:, :5]})
    assert not ShortTexts.serves(model, {"token_ids": x["token_ids"]})
    assert not ShortTexts.serves(tiny.mlp(), np.ones((2, 6)))
    fixed = {key: keras.Input((12,), dtype="int32", name=key) for key in x}
    assert not ShortTexts.serves(keras.Model(fixed, model(fixed)), x)


@pytest.mark.parametrize("stored", [False, True])
def test_cache_features_cuts_texts(stored, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "SHARD_BATCHES", 2)
    model, x = network(), tokens()
    path = tmp_path / "cache" if stored else None
    weights = np.linspace(1, 2, len(Y))
    for _ in range(1 + stored):
        cached = kt.backbones.cache_features(
            model, (x, Y, weights), path, batch_size=3, verbose=0
        )
        found, y, weight = next(cached.batch(len(Y)).as_numpy_iterator())
        assert y.tolist() == Y.tolist()
        np.testing.assert_allclose(weight, weights)
        assert_close(found, model(x, training=False), 1e-6)
