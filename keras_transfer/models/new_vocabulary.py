"""Weights for another vocabulary: known words keep theirs, new words get the mean."""

import numpy as np

from keras_transfer.data.word_vocabulary import SPECIAL


def rows_of(rows: np.ndarray, words: list[str], new_words: list[str]) -> np.ndarray:
    """Return one row for each new word.

    Args:
        rows: Array whose first axis has a row for each of `words`.
        words: The vocabulary of `rows`.
        new_words: Another vocabulary.

    Returns:
        An array with a row for each of `new_words`: the row of the same word, or the
        mean of all rows for a word that is not in `words`.
    """
    places = {word: place for place, word in enumerate(words)}
    found = np.array([places.get(word, -1) for word in new_words])
    mean = rows.mean(axis=0, keepdims=True, dtype="float64").astype(rows.dtype)
    return np.concatenate([rows, mean])[found]


def check_overlap(words: list[str], new_words: list[str]) -> None:
    """Raise an error if two vocabularies have no word in common.

    Raises:
        ValueError: If they have none, except the special entries.
    """
    first = len(SPECIAL)
    if not set(words[first:]) & set(new_words[first:]):
        raise ValueError(
            f"The new vocabulary of {len(new_words)} words, such as "
            f"{new_words[first : first + 3]}, has no word in common with that of this "
            f"model, such as {words[first : first + 3]}. Nothing would be transferred. "
            "Make both by kt.data.word_vocabulary."
        )
