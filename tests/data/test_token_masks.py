"""TokenMasks hides the right tokens, and token_rows loses none."""

import keras_hub
import numpy as np
import pytest

from keras_transfer.data.pretraining_batches import PretrainingBatches
from keras_transfer.data.token_masks import TokenMasks
from keras_transfer.data.token_rows import padded_groups
from keras_transfer.data.token_rows import token_rows

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, UNK, CLS, SEP, MASK = range(5)
WORDS = [*SPECIAL, *"abcdefgh", "##x", "##y"]


@pytest.fixture(scope="module")
def tokenizer():
    return keras_hub.models.BertTokenizer(vocabulary=WORDS)


def test_shares_of_masked_random_and_kept_tokens(tokenizer):
    masks = TokenMasks(tokenizer, whole_words=False)
    ids = np.full((400, 42), 6, "int32")
    ids[:, 0], ids[:, -1] = CLS, SEP
    hidden = masks(ids, np.random.default_rng(0))
    assert hidden.weights.sum(1).tolist() == [6] * 400  # 15 % of 40
    assert (hidden.labels == 6).all()
    new = np.take_along_axis(hidden.token_ids, hidden.positions, 1)
    # 2,400 tokens: three standard errors are 0.025.
    assert abs((new == MASK).mean() - 0.8) < 0.025
    kept = 0.1 + 0.1 / 11  # a random token can be the same
    assert abs((new == 6).mean() - kept) < 0.025
    others = new[(new != MASK) & (new != 6)]
    assert set(others) == {1, 5, *range(7, 15)}  # never [PAD], [CLS], [SEP], [MASK]
    changed = np.argwhere(hidden.token_ids != ids)
    at = {(row, place) for row, each in enumerate(hidden.positions) for place in each}
    assert {tuple(each) for each in changed} <= at


def test_special_tokens_and_padding_are_never_chosen(tokenizer):
    masks = TokenMasks(tokenizer, whole_words=False)
    ids = np.array([[CLS, 7, SEP, PAD, PAD, PAD], [CLS, SEP, PAD, PAD, PAD, PAD]])
    for seed in range(20):
        hidden = masks(ids, np.random.default_rng(seed))
        assert hidden.positions[0].tolist() == [1]
        assert hidden.weights.tolist() == [[1], [0]]
        np.testing.assert_array_equal(hidden.token_ids[1], ids[1])


def test_whole_words_are_hidden_together(tokenizer):
    masks = TokenMasks(tokenizer, whole_words=True)
    # Words: a ##x ##y, b, c ##x, ...: 20 tokens, of which 3 are chosen.
    words = [[5, 13, 14], [6], [7, 13], [8], [9, 14], [10], [11, 13], [12]] * 2
    ids = np.array([[CLS, *np.concatenate(words)[:20], SEP]])
    starts = [place for place in range(1, 21) if ids[0, place] < 13]
    for seed in range(30):
        hidden = masks(ids, np.random.default_rng(seed))
        chosen = set(hidden.positions[0][hidden.weights[0] == 1])
        assert 1 <= len(chosen) <= 3
        for start, stop in zip(starts, [*starts[1:], 21]):
            assert len(chosen & set(range(start, stop))) in (0, stop - start)


def test_a_word_longer_than_the_share_is_cut(tokenizer):
    masks = TokenMasks(tokenizer, whole_words=True)
    hidden = masks(np.array([[CLS, 5, 13, 14, SEP]]), np.random.default_rng(0))
    assert hidden.positions.tolist() == [[1]]


def test_long_texts_become_rows_and_empty_ones_are_counted(tokenizer):
    found = token_rows(["a b c d e", "", "f", "\u0007"], tokenizer, 4)
    rows = [row.tolist() for row in found.rows]
    assert rows == [
        [CLS, 5, 6, SEP],
        [CLS, 7, 8, SEP],
        [CLS, 9, SEP],
        [CLS, 10, SEP],
    ]
    assert found.empty == 2 and found.num_tokens == 14
    groups = padded_groups(found.rows, PAD)
    assert [group["token_ids"].tolist() for group in groups] == [
        [[CLS, 9, SEP], [CLS, 10, SEP]],
        [[CLS, 5, 6, SEP], [CLS, 7, 8, SEP]],
    ]


def test_masks_differ_by_pass_and_are_the_same_in_each_run(tokenizer):
    groups = padded_groups(token_rows(["a b c d e f g h"] * 9, tokenizer, 20).rows, PAD)
    masks = TokenMasks(tokenizer, whole_words=False)

    def read(number):
        batches = PretrainingBatches(groups, masks, 4, 0, segment_ids=True)
        return list(batches.dataset(lambda: number).as_numpy_iterator())

    first, again, second = read(0), read(0), read(1)
    assert len(first) == 3 and set(first[0][0]) == {
        "token_ids",
        "padding_mask",
        "segment_ids",
        "mask_positions",
    }
    positions = [
        np.concatenate([x["mask_positions"] for x, _, _ in each])
        for each in (first, again, second)
    ]
    np.testing.assert_array_equal(positions[0], positions[1])
    assert not np.array_equal(positions[0], positions[2])


def test_the_label_of_a_causal_model_is_the_next_token(tokenizer):
    groups = padded_groups(token_rows(["a b", "c"], tokenizer, 9).rows, PAD)
    batches = PretrainingBatches(groups, None, 4, 0, segment_ids=False, in_order=True)
    found = list(batches.dataset(lambda: 0).as_numpy_iterator())
    x, y, weights = found[-1]
    assert x["token_ids"].tolist() == [[CLS, 5, 6, SEP]]
    assert y.tolist() == [[5, 6, SEP, 0]] and weights.tolist() == [[1, 1, 1, 0]]


def test_frequencies_count_each_token_and_one_more(tokenizer):
    groups = padded_groups(token_rows(["a a a", "b"], tokenizer, 9).rows, PAD)
    batches = PretrainingBatches(groups, None, 4, 0, segment_ids=False)
    # 8 tokens and 15 of the vocabulary: [CLS] and [SEP] twice, a three times, b once.
    right = np.ones(15)
    right[[CLS, SEP, 5, 6]] += [2, 2, 3, 1]
    np.testing.assert_allclose(np.exp(batches.log_frequencies(15)), right / 23, 1e-6)


def test_bad_texts_and_tokenizers_are_refused(tokenizer):
    with pytest.raises(TypeError, match="one string"):
        token_rows("a b", tokenizer, 9)
    with pytest.raises(TypeError, match="Text 1 is 3, which is a int"):
        token_rows(["a", 3], tokenizer, 9)
    with pytest.raises(ValueError, match="There are no texts"):
        token_rows([], tokenizer, 9)
    with pytest.raises(ValueError, match="None of the 2 texts has a token"):
        token_rows(["", " "], tokenizer, 9)
    causal = keras_hub.models.GPT2Tokenizer(
        vocabulary={"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}, merges=["a b"]
    )
    with pytest.raises(ValueError, match="GPT2Tokenizer has no mask token"):
        TokenMasks(causal, whole_words=False)
