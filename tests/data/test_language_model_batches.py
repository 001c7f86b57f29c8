"""language_model_batches: contiguous rows, shifted targets, restarts and orders."""

import numpy as np
import pytest

import keras_transfer as kt

TEXTS = ["a b c", "d e", "f g h i"]
WORDS = ["", "[UNK]", "[END]", *"abcdefghi"]
END = 2
STREAM = [3, 4, 5, END, 6, 7, END, 8, 9, 10, 11, END]  # by hand


def rows_of(batches):
    """Return the ids, the targets and the restarts of all batches."""
    found = list(batches.as_numpy_iterator())
    ids = np.concatenate([x["token_ids"] for x, _ in found], axis=1)
    targets = np.concatenate([y for _, y in found], axis=1)
    return ids, targets, [x["restart"].tolist() for x, _ in found]


def test_two_streams_by_hand():
    batches = kt.data.language_model_batches(TEXTS, WORDS, 2, sequence_length=2)
    ids, targets, restarts = rows_of(batches)
    assert len(batches) == 3
    assert ids.tolist() == [STREAM[0:5], STREAM[6:11]]
    assert targets.tolist() == [STREAM[1:6], STREAM[7:12]]
    assert restarts == [[True, True], [False, False], [False, False]]
    assert ids.dtype == targets.dtype == "int32"


def test_words_that_fill_no_row_or_no_batch_are_left_out():
    batches = kt.data.language_model_batches(
        TEXTS, WORDS, 5, sequence_length=1, drop_remainder=True
    )
    assert rows_of(batches)[1].tolist() == [[4], [END], [7], [8], [10]]
    batches = kt.data.language_model_batches(
        TEXTS, WORDS, 2, sequence_length=2, drop_remainder=True
    )
    assert len(batches) == 2
    assert rows_of(batches)[1].tolist() == [STREAM[1:5], STREAM[7:11]]
    assert batches.element_spec[1].shape == (2, 2)


def test_a_seed_gives_each_pass_another_order_of_the_same_texts():
    texts = [f"{a} {b}" for a in "abcdefghi" for b in "abcdefghi"]

    def passes(seed):
        batches = kt.data.language_model_batches(
            texts, WORDS, 1, sequence_length=50, seed=seed
        )
        return [rows_of(batches)[0][0] for _ in range(3)]

    first, again, other = passes(1), passes(1), passes(2)
    plain = passes(None)
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any() and (first[0] != other[0]).any()
    np.testing.assert_array_equal(plain[0], plain[1])
    text = {tuple(row) for row in plain[0][:240].reshape(-1, 3)}
    assert {tuple(row) for row in first[1][:240].reshape(-1, 3)} - text <= {(11, 11, 2)}


def test_unknown_words_are_marked():
    batches = kt.data.language_model_batches(["a zz b"], WORDS, 1, sequence_length=3)
    assert rows_of(batches)[0].tolist() == [[3, 1, 4]]


def test_too_few_words_raise():
    with pytest.raises(
        ValueError, match="12 words, so each of the 4 streams predicts 2"
    ):
        kt.data.language_model_batches(TEXTS, WORDS, 4, sequence_length=3)
    with pytest.raises(ValueError, match="predicts 0 words"):
        kt.data.language_model_batches(["a"], WORDS, 8)


def test_a_text_without_words_raises():
    with pytest.raises(ValueError, match=r"Text 1 is '\.\.\.', which has no words"):
        kt.data.language_model_batches(["a b", "..."], WORDS, 1, sequence_length=1)


@pytest.mark.parametrize(
    "wrong", [{"sequence_length": 0}, {"seed": -1}, {"sequence_length": 2.5}]
)
def test_arguments_out_of_range_raise(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        kt.data.language_model_batches(TEXTS, WORDS, 1, **wrong)
    with pytest.raises(ValueError, match="batch_size"):
        kt.data.language_model_batches(TEXTS, WORDS, 0)
