"""word_vocabulary and word_vectorizer: order, special entries, round trip, errors."""

import numpy as np
import pytest

import keras_transfer as kt
from tests.contracts.compare import array

TEXTS = ["Good, good book!", "a book [END]", "Good"]


def test_words_are_sorted_by_frequency_after_the_special_entries():
    words = kt.data.word_vocabulary(TEXTS)
    assert words[:5] == ["", "[UNK]", "[END]", "good", "book"]
    assert sorted(words[5:]) == ["a", "end"]  # the mark cannot come from a text
    assert all(type(word) is str for word in words)
    assert kt.data.word_vocabulary(np.array(TEXTS, object), 4) == words[:4]


def test_ids_are_places_in_the_list():
    words = kt.data.word_vocabulary(TEXTS)
    vectorizer = kt.data.word_vectorizer(words)
    assert vectorizer.get_vocabulary() == words
    ids = array(vectorizer(["book good", "GOOD unseen book a"]))
    assert [[words[i] for i in row] for row in ids] == [
        ["book", "good", "", ""],
        ["good", "[UNK]", "book", "a"],
    ]
    assert array(kt.data.word_vectorizer(words, 2)(["good", "a a a"])).shape == (2, 2)


def test_wrong_texts_raise():
    with pytest.raises(TypeError, match="one string"):
        kt.data.word_vocabulary("a text")
    with pytest.raises(TypeError, match="Text 1 is 3"):
        kt.data.word_vocabulary(["a", 3])
    with pytest.raises(ValueError, match="no texts"):
        kt.data.word_vocabulary([])
    with pytest.raises(ValueError, match="have no words"):
        kt.data.word_vocabulary(["...", ""])
    with pytest.raises(ValueError, match="max_words=3"):
        kt.data.word_vocabulary(TEXTS, 3)


def test_wrong_vocabularies_raise():
    with pytest.raises(TypeError, match="list of words"):
        kt.data.word_vectorizer("words")
    with pytest.raises(ValueError, match="must begin with"):
        kt.data.word_vectorizer(["", "[UNK]", "good"])
    with pytest.raises(ValueError, match="must begin with"):
        kt.data.word_vectorizer(["", "[UNK]", "[END]"])
    with pytest.raises(ValueError, match="'good' is in the vocabulary twice"):
        kt.data.word_vectorizer(["", "[UNK]", "[END]", "good", "good"])
    with pytest.raises(ValueError, match="sequence_length=0"):
        kt.data.word_vectorizer(["", "[UNK]", "[END]", "good"], 0)
