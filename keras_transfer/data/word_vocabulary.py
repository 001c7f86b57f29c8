"""word_vocabulary and word_vectorizer: the words of texts, and texts as word ids."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from keras_transfer._arguments import whole_number
from keras_transfer.data.texts import checked_texts

PADDING = ""
UNKNOWN = "[UNK]"
END = "[END]"  # after each text of a language model; no text contains it
SPECIAL = [PADDING, UNKNOWN, END]


def word_vocabulary(texts: Sequence[str], max_words: int = 10_000) -> list[str]:
    """Return the most frequent words of texts, for a language model over words.

    Words are in lower case and without punctuation, as in
    `keras.layers.TextVectorization`. The first three entries have a special meaning:
    `""` is padding, `"[UNK]"` is every word that is not in the list, and `"[END]"` is
    the end of a text in `kt.data.language_model_batches`.

    Args:
        texts: List, array or pandas column of strings.
        max_words: Int above 3, the most entries of the list, the special entries
            included. Defaults to 10,000.

    Returns:
        A list of strings, the most frequent words first. The id of a word is its place
        in the list.

    Example:
        ```python
        import keras_transfer as kt

        words = kt.data.word_vocabulary(["A good book.", "Good, but long"])
        assert words[:4] == ["", "[UNK]", "[END]", "good"] and len(words) == 8
        ```

    Raises:
        TypeError: If `texts` is a single string, or an entry is not a string.
        ValueError: If there is no text or no word, or `max_words` is too small.

    Reference:
        Howard and Ruder, 2018, "Universal Language Model Fine-tuning for Text
        Classification", arXiv 1801.06146; Keras, `keras.layers.TextVectorization`.
    """
    least = len(SPECIAL) + 1
    why = f"{len(SPECIAL)} entries are special, and at least one word must follow"
    max_words = whole_number("max_words", max_words, least, why=why)
    vectorizer = keras.layers.TextVectorization()
    vectorizer.adapt(np.array(checked_texts(texts), object))
    words = vectorizer.get_vocabulary(include_special_tokens=False)
    if not words:
        raise ValueError(
            f"The {len(texts)} texts have no words, only spaces and punctuation. Pass "
            "texts with words."
        )
    return [*SPECIAL, *map(str, words[: max_words - len(SPECIAL)])]


def word_vectorizer(
    vocabulary: Sequence[str], sequence_length: int | None = None
) -> keras.layers.TextVectorization:
    """Return the layer that turns texts into the ids of their words.

    Args:
        vocabulary: List of words, as `kt.data.word_vocabulary` returns it.
        sequence_length: Int of at least 1, the number of ids of each text: longer texts
            are cut, shorter ones are padded with 0 on the right. Defaults to `None`,
            the length of the longest text of a batch.

    Returns:
        A `keras.layers.TextVectorization`. `kt.export_serving` takes it as a
        preprocessor.

    Example:
        ```python
        import keras_transfer as kt

        words = kt.data.word_vocabulary(["A good book.", "good"])
        ids = kt.data.word_vectorizer(words)(["Good!", "a bad book"])
        assert ids.numpy().tolist()[0] == [words.index("good"), 0, 0]
        assert ids.numpy().tolist()[1][1] == words.index("[UNK]")
        ```

    Raises:
        TypeError: If `vocabulary` is not a list of strings.
        ValueError: If `vocabulary` does not begin with the special entries or has a
            word twice, or if `sequence_length` is out of range.

    Reference:
        Keras, `keras.layers.TextVectorization`.
    """
    words = checked_vocabulary(vocabulary)
    if sequence_length is not None:
        sequence_length = whole_number("sequence_length", sequence_length)
    return keras.layers.TextVectorization(
        vocabulary=words[2:], output_sequence_length=sequence_length
    )


def checked_vocabulary(vocabulary: Sequence[str]) -> list[str]:
    """Return the vocabulary as a list, or raise an error.

    Raises:
        TypeError: If it is not a list of strings.
        ValueError: If its beginning is wrong, or a word is in it twice.
    """
    words = [] if isinstance(vocabulary, str) else list(vocabulary)
    if not words or not all(isinstance(word, str) for word in words):
        raise TypeError(
            f"The vocabulary is {str(vocabulary)[:60]!r}, but it must be a list of "
            "words. Pass the result of kt.data.word_vocabulary(texts)."
        )
    words = [str(word) for word in words]  # not the strings of NumPy
    if words[: len(SPECIAL)] != SPECIAL or len(words) == len(SPECIAL):
        raise ValueError(
            f"The vocabulary begins with {words[:4]}, but it must begin with {SPECIAL} "
            "and have words after them. Pass the result of "
            "kt.data.word_vocabulary(texts)."
        )
    if len(set(words)) < len(words):
        twice = next(word for word in words if words.count(word) > 1)
        raise ValueError(
            f"The word {twice!r} is in the vocabulary twice, so its id is not defined. "
            "Remove one of the two."
        )
    return words
