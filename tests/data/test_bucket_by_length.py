"""The promises of bucket_by_length: few padded tokens, the same outputs, every row."""

import contextlib
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.data.token_lengths import choose_boundaries
from tests import tiny
from tests.contracts.compare import assert_close

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
LIMIT = 12
# Texts of 3 to 12 tokens with [CLS] and [SEP], and two that are cut.
WORD_COUNTS = [1, 2, 3, 9, 1, 10, 4, 1, 25, 2, 3, 1, 6, 1, 2, 8, 13, 5, 2, 1, 1, 3]
TEXTS = [
    " ".join(np.resize(list("abcdefgh"), n + i % 3)[i % 3 :])
    for i, n in enumerate(WORD_COUNTS)
]
Y = np.arange(len(TEXTS))  # tells each example
TOKENS = np.minimum(np.array(WORD_COUNTS) + 2, LIMIT)


@pytest.fixture(scope="module")
def preprocessor():
    import keras_hub

    return keras_hub.models.BertTextClassifierPreprocessor(
        keras_hub.models.BertTokenizer(vocabulary=WORDS), sequence_length=LIMIT
    )


def bucketed(preprocessor, data=(TEXTS, Y), batch_size=4, boundaries=(4, 8), **kwargs):
    return kt.data.bucket_by_length(
        data, preprocessor, batch_size, boundaries=boundaries, **kwargs
    )


def read(dataset):
    return list(dataset.as_numpy_iterator())


def labels(dataset):
    return [batch[1].tolist() for batch in dataset.as_numpy_iterator()]


# Buckets.


def test_each_example_comes_once_at_the_first_length_that_fits(preprocessor):
    dataset = bucketed(preprocessor)
    batches = read(dataset)
    assert sorted(np.concatenate([y for _, y in batches])) == Y.tolist()
    assert len(batches) == len(dataset) == int(dataset.cardinality())
    whole = preprocessor(TEXTS)
    count = sum(x["padding_mask"].sum() for x, _ in batches)  # none is cut here alone
    assert count == TOKENS.sum() == np.sum(whole["padding_mask"])
    for x, y in batches:
        length = x["token_ids"].shape[1]
        assert {4: 4, 8: 8, LIMIT: LIMIT}[length] >= TOKENS[y].max()
        below = {4: 0, 8: 4, LIMIT: 8}[length]
        assert TOKENS[y].min() > below and len(y) <= 4
        assert sorted(x) == sorted(whole)
        for key, rows in x.items():
            expected = np.asarray(whole[key])[y]
            np.testing.assert_array_equal(rows, expected[:, :length])
            assert rows.dtype == "int32"  # Booleans as well


def test_default_boundaries_are_chosen_from_the_data(preprocessor):
    texts, y = TEXTS * 4, np.arange(4 * len(TEXTS))
    dataset = bucketed(preprocessor, (texts, y), 2, boundaries=None)
    shapes = {x["token_ids"].shape[1] for x, _ in read(dataset)}
    assert shapes == set(choose_boundaries(TOKENS, 6))
    # Under 4 batches of each length there are fewer lengths, down to the longest text.
    one = bucketed(preprocessor, (TEXTS[:5], Y[:5]), boundaries=None)
    assert {x["token_ids"].shape[1] for x, _ in read(one)} == {TOKENS[:5].max()}


@pytest.mark.parametrize("most", [1, 2, 3, 4, 20])
def test_chosen_boundaries_have_the_fewest_tokens(most):
    def tokens(ends):
        return np.array(ends)[np.searchsorted(ends, TOKENS)].sum()

    found = choose_boundaries(TOKENS, most)
    values = sorted(set(TOKENS.tolist()))
    assert len(found) <= most and set(found) <= set(values)
    best = min(
        tokens([*ends, values[-1]])
        for count in range(min(most, len(values)))
        for ends in itertools.combinations(values[:-1], count)
    )
    assert tokens(found) == best
    if most == 20:
        assert found == values


def test_boundaries_of_very_long_texts_end_at_the_longest():
    lengths = np.random.default_rng(0).integers(1, 9000, 20_000)
    found = choose_boundaries(lengths, 6)
    assert len(found) == 6 and found[-1] == lengths.max()
    assert np.array(found)[np.searchsorted(found, lengths)].mean() < 5300


# Order.


@pytest.mark.slow
def test_each_pass_has_another_order_and_the_seed_says_which(preprocessor):
    first, again, other = (
        bucketed(preprocessor, seed=seed, boundaries=(6,)) for seed in (1, 1, 2)
    )
    passes = [labels(first) for _ in range(2)]
    assert passes == [labels(again) for _ in range(2)]
    assert labels(other) != passes[0] != passes[1]
    assert all(sorted(sum(each, [])) == Y.tolist() for each in passes)
    members = [{frozenset(batch) for batch in each} for each in passes]
    assert members[0] != members[1]  # not only the batches are shuffled


def test_repeat_is_a_pass_as_well(preprocessor):
    one, two = (bucketed(preprocessor, boundaries=(6,)) for _ in range(2))
    assert labels(two.repeat(2)) == labels(one) + labels(one)


def test_without_a_seed_the_order_is_that_of_the_data(preprocessor):
    dataset = bucketed(preprocessor, seed=None)
    found = sum(labels(dataset), [])
    assert found == sum(labels(dataset), [])
    for low, high in ((0, 4), (4, 8), (8, LIMIT)):
        inside = (low < TOKENS[found]) & (TOKENS[found] <= high)
        assert (np.diff(np.array(found)[inside]) > 0).all()
    assert (np.diff(np.searchsorted([4, 8], TOKENS[found])) >= 0).all()


# Options.


@pytest.mark.parametrize("weighted", [False, True])
def test_static_shapes_fill_up_with_rows_of_weight_0(preprocessor, weighted):
    weight = np.linspace(1, 2, len(Y)) if weighted else np.ones(len(Y))
    data = (TEXTS, Y, weight) if weighted else (TEXTS, Y)
    dataset = bucketed(preprocessor, data, boundaries=(6,), static_shapes=True)
    assert dataset.element_spec[0]["token_ids"].shape == (4, None)
    found = {}
    for x, y, weights in read(dataset):
        assert len(y) == len(weights) == len(x["token_ids"]) == 4
        real = weights > 0
        assert real.any()
        found |= dict(zip(y[real], weights[real], strict=True))
    assert found == dict(zip(Y, weight, strict=True))
    # The arrays behind the batches keep their weights.
    assert sum((each[2] > 0).sum() for each in read(dataset)) == len(Y)


def test_static_shapes_of_equal_tokens_are_static_for_each_length(preprocessor):
    dataset = bucketed(
        preprocessor, batch_size=2, equal_tokens=True, static_shapes=True
    )
    shapes = {x["token_ids"].shape for x, _, _ in read(dataset)}
    assert shapes == {(6, 4), (3, 8), (2, LIMIT)}


# Data.


@pytest.mark.slow
def test_arrays_lists_columns_and_datasets_are_the_same(preprocessor):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"text": TEXTS, "y": Y, "weight": Y / 2})
    expected = labels(bucketed(preprocessor, boundaries=(6,)))
    rows = tf.data.Dataset.from_tensor_slices((TEXTS, Y))
    for data in (
        (np.array(TEXTS, object), Y.tolist(), None),
        (table.text, table.y, table.weight),
        rows.filter(lambda x, y: True).batch(5),  # of unknown length
    ):
        dataset = bucketed(preprocessor, data, boundaries=(6,))
        assert labels(dataset) == expected
        for _, y, *weights in read(dataset):
            for weight in weights:
                np.testing.assert_array_equal(y / 2, weight)
    assert labels(bucketed(preprocessor, rows, boundaries=(6,))) == expected


def test_pairs_of_texts_and_structures_of_labels(preprocessor):
    second = TEXTS[::-1]
    data = (TEXTS, second), {"one": Y, "two": np.eye(len(Y))}
    whole = preprocessor((tf.constant(TEXTS), tf.constant(second)), y=None)
    batches = read(bucketed(preprocessor, data, boundaries=(6,)))
    rows = [y["one"] for _, y in batches]
    assert sorted(np.concatenate(rows)) == Y.tolist()
    for x, y in batches:
        length = x["token_ids"].shape[1]
        np.testing.assert_array_equal(y["two"], np.eye(len(Y))[y["one"]])
        for key in x:
            expected = np.asarray(whole[key])[y["one"]]
            np.testing.assert_array_equal(x[key], expected[:, :length])
    assert {x["token_ids"].shape[1] for x, _ in batches} == {6, LIMIT}


def test_the_preprocessor_of_the_user_stays_as_it_was(preprocessor):
    before, names = preprocessor.get_config(), sorted(vars(preprocessor))
    whole = np.asarray(preprocessor(TEXTS)["token_ids"])
    read(bucketed(preprocessor, boundaries=(6,)))
    assert preprocessor.get_config() == before
    assert preprocessor.sequence_length == preprocessor.packer.sequence_length == LIMIT
    assert sorted(vars(preprocessor)) == names
    np.testing.assert_array_equal(preprocessor(TEXTS)["token_ids"], whole)


# Outputs.


def outputs_at_one_length(model, preprocessor, dataset):
    whole = preprocessor(TEXTS)
    whole = keras.tree.map_structure(np.asarray, whole)
    expected = np.asarray(model(whole, training=False))
    count = 0
    for x, y in read(dataset):
        assert_close(model(x, training=False), expected[y], 1e-6)
        count += len(y)
    assert count == len(Y)
    return expected


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_bert_has_the_outputs_of_one_length(preprocessor, pooling):
    keras.utils.set_random_seed(0)
    bert = tiny.bert(num_layers=1)
    model = kt.models.TransferClassifier(bert, 3, pooling=pooling)
    found = outputs_at_one_length(model, preprocessor, bucketed(preprocessor))
    assert np.ptp(found, 0).min() > 1e-4


@pytest.mark.slow
def test_a_gpt2_pooled_at_the_last_token_has_the_outputs_of_one_length():
    import keras_hub

    words = ["<|endoftext|>", "Ġ", *"abcdefgh", *(f"Ġ{x}" for x in "abcdefgh")]
    vocabulary = {word: place for place, word in enumerate(words)}
    merges = [f"Ġ {letter}" for letter in "abcdefgh"]
    preprocessor = keras_hub.models.GPT2Preprocessor(
        keras_hub.models.GPT2Tokenizer(vocabulary=vocabulary, merges=merges),
        sequence_length=LIMIT,
    )
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=len(vocabulary),
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=LIMIT,
    )
    model = kt.models.TransferClassifier(backbone, 3, pooling="last")
    dataset = bucketed(preprocessor, boundaries=(6,))
    outputs_at_one_length(model, preprocessor, dataset)


@pytest.mark.slow
def test_a_roberta_has_the_outputs_of_one_length():
    import keras_hub

    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *"abcdefgh"]
    words += [f"Ġ{letter}" for letter in "abcdefgh"]
    vocabulary = {word: place for place, word in enumerate(words)}
    merges = [f"Ġ {letter}" for letter in "abcdefgh"]
    preprocessor = keras_hub.models.RobertaTextClassifierPreprocessor(
        keras_hub.models.RobertaTokenizer(vocabulary=vocabulary, merges=merges),
        sequence_length=LIMIT,
    )
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.RobertaBackbone(
        vocabulary_size=len(words),
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=LIMIT,
    )
    model = kt.models.TransferClassifier(backbone, 3)
    dataset = bucketed(preprocessor, boundaries=(6,))
    outputs_at_one_length(model, preprocessor, dataset)


# Training.


def compiled(model, jit_compile=False, **kwargs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    sgd = keras.optimizers.SGD(0.1)
    model.compile(sgd, loss, jit_compile=jit_compile, **kwargs)
    return model


def classifier():
    keras.utils.set_random_seed(0)
    return kt.models.TransferClassifier(tiny.bert(num_layers=1, dropout=0.0), 3)


@pytest.mark.slow
def test_a_transfer_classifier_fits_with_xla(preprocessor):
    model = compiled(classifier(), jit_compile=True)
    dataset = bucketed(preprocessor, (TEXTS, Y % 3), boundaries=(6,))
    history = model.fit(dataset, epochs=2, shuffle=False, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert int(model.optimizer.iterations) == 2 * len(dataset)


@pytest.mark.slow
def test_a_task_fits_with_its_preprocessor_detached(preprocessor):
    import keras_hub

    task = keras_hub.models.BertTextClassifier(
        tiny.bert(num_layers=1, dropout=0.0), 3, preprocessor=preprocessor
    )
    compiled(task)
    expected = task.evaluate(np.array(TEXTS, object), Y % 3, verbose=0)
    dataset, held_out = (
        bucketed(task.preprocessor, (TEXTS, Y % 3), seed=seed, boundaries=(6,))
        for seed in (0, None)
    )
    task.preprocessor = None
    assert task.evaluate(held_out, verbose=0) == pytest.approx(expected, abs=1e-5)
    task.fit(dataset, shuffle=False, verbose=0)
    assert int(task.optimizer.iterations) == len(dataset)


@pytest.mark.slow
def test_two_replicas_train_as_one_with_static_shapes(preprocessor, strategy):
    def trained(scope):
        with scope:
            model = compiled(classifier())
        model.fit(dataset, shuffle=False, verbose=0)
        return model.get_weights()

    dataset = bucketed(
        preprocessor, (TEXTS, Y % 3), boundaries=(6,), static_shapes=True, seed=None
    )
    assert_close(trained(strategy.scope()), trained(contextlib.nullcontext()), 1e-5)


@pytest.mark.slow
def test_features_can_be_cached_from_batches(preprocessor):
    keras.utils.set_random_seed(0)
    model = kt.backbones.features(tiny.bert(num_layers=1))
    dataset = bucketed(preprocessor, seed=None, boundaries=(6,))
    cached = kt.backbones.cache_features(model, dataset, verbose=0)
    x = keras.tree.map_structure(np.asarray, preprocessor(TEXTS))
    expected = np.asarray(model(x, training=False))
    for feature, y, _ in cached.as_numpy_iterator():
        assert_close(feature, expected[y], 1e-5)


# Errors.


@pytest.mark.parametrize(
    "kwargs, error, message",
    [
        (dict(boundaries=(4, 4)), ValueError, "each greater than the one before"),
        (dict(boundaries=()), ValueError, "one or more lengths"),
        (dict(boundaries=(4, 13)), ValueError, "sequence_length=12"),
        (dict(boundaries=(0, 4)), ValueError, "whole number"),
        (dict(batch_size=0), ValueError, "batch_size=0"),
        (dict(seed=-1), ValueError, "seed=-1"),
        (dict(data=(TEXTS[:0], Y[:0])), ValueError, "is empty"),
        (dict(data=(TEXTS, Y[1:])), ValueError, r"\[21, 22\] examples"),
        (dict(data=(TEXTS,)), ValueError, "no labels"),
        (dict(data=(TEXTS, None)), ValueError, "no labels"),
        (dict(data=TEXTS), TypeError, "texts_or_dataset"),
        (dict(data=iter([(TEXTS, Y)])), TypeError, "only one pass"),
        (dict(data=(Y, Y)), TypeError, "must be strings"),
        (dict(data=([*TEXTS[1:], None], Y)), ValueError, "missing"),
        (dict(data=([[text] for text in TEXTS], Y)), TypeError, "must be strings"),
    ],
)
def test_what_cannot_be_bucketed_raises(preprocessor, kwargs, error, message):
    with pytest.raises(error, match=message):
        bucketed(preprocessor, **kwargs)


def test_datasets_that_cannot_be_bucketed_raise(preprocessor):
    rows = tf.data.Dataset.from_tensor_slices((TEXTS, Y))
    ragged = tf.data.Dataset.from_tensor_slices(
        (tf.ragged.constant([["a"], []]), [0, 1])
    )
    for data, error, message in (
        (rows.repeat(), ValueError, "has no end"),
        (rows.take(0), ValueError, "is empty"),
        (rows.filter(lambda x, y: False), ValueError, "is empty"),
        (rows.map(lambda x, y: x), ValueError, "no labels"),
        (ragged, TypeError, "RaggedTensor"),
    ):
        with pytest.raises(error, match=message):
            bucketed(preprocessor, data)


@pytest.mark.slow
def test_preprocessors_that_do_not_suit_raise(preprocessor):
    import keras_hub

    tokenizer = preprocessor.tokenizer
    masked = keras_hub.models.BertMaskedLMPreprocessor(
        tokenizer, sequence_length=LIMIT, mask_selection_length=2
    )
    task = tiny.bert_classifier()

    @keras.saving.register_keras_serializable("test")
    class NoMask(keras_hub.models.BertTextClassifierPreprocessor):
        def call(self, x, y=None, sample_weight=None):
            return {"token_ids": super().call(x)["token_ids"]}

    @keras.saving.register_keras_serializable("test")
    class OnTheLeft(keras_hub.models.BertTextClassifierPreprocessor):
        def call(self, x, y=None, sample_weight=None):
            return keras.tree.map_structure(lambda x: x[:, ::-1], super().call(x))

    @keras.saving.register_keras_serializable("test")
    class Fixed(keras_hub.models.BertTextClassifierPreprocessor):
        sequence_length = LIMIT  # not the property that its packer follows

    class Own(keras.layers.Layer):
        sequence_length = LIMIT

        def __init__(self, words):
            super().__init__()

    for wrong, error, message in (
        (tokenizer, ValueError, "sequence_length=None"),
        (len, ValueError, "sequence_length=None"),
        (task, TypeError, "task.preprocessor"),
        (masked, ValueError, "makes the labels"),
        (NoMask(tokenizer, LIMIT), ValueError, "no 'padding_mask'"),
        (OnTheLeft(tokenizer, LIMIT), ValueError, "pads on the left"),
        (Fixed(tokenizer), ValueError, "makes rows of 512 tokens"),
        (Own(WORDS), ValueError, "cannot be copied"),
    ):
        with pytest.raises(error, match=message):
            bucketed(wrong)
