"""SplitWords: text to words separated by spaces, for Keras's TextVectorization."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import tensorflow as tf

# Patterns of RE2 and their replacement, in order.
SAME = (
    (r"\p{Z}", " "),
    (r"[’‘`´]", "'"),
    (r"[“”„«»]|''", '"'),
)
PUNCTUATION = (
    (r"([!?;:\"(){}\[\]<>*=|~^%$#@+\\/…])", r" \1 "),
    (r"(\.+|,)(\s|$)", r" \1 \2"),  # not in 3.14 and not in u.s.a
    (r"(\s|^)'(\w\w\w)", r"\1' \2"),  # but 'll is a word
    (r"(\w)'(\s|$)", r"\1 ' \2"),
)
CONTRACTIONS = (
    (r"(?i)(\w)(n't)\b", r"\1 \2"),
    (r"(?i)(\w)('(?:s|re|ve|ll|d|m))\b", r"\1 \2"),
)


@keras.saving.register_keras_serializable(package="keras_transfer")
class SplitWords:
    """Return texts in which punctuation is separated from the words by spaces.

    TextVectorization's own `"lower_and_strip_punctuation"` deletes punctuation, so
    "don't" becomes "dont". Files of vectors have words for punctuation, and GloVe also
    for the parts of "do n't" and "it 's".

    Args:
        lower: Whether the text is changed to lower case.
        contractions: Whether "don't" and "it's" become two words.
    """

    def __init__(self, lower: bool, contractions: bool):
        self.lower = lower
        self.contractions = contractions

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        """Return a tensor of strings of the same shape."""
        if self.lower:
            texts = tf.strings.lower(texts, encoding="utf-8")
        patterns = SAME + PUNCTUATION
        for pattern, new in patterns + CONTRACTIONS * self.contractions:
            texts = tf.strings.regex_replace(texts, pattern, new)
        return texts

    def words(self, texts: Iterable[str]) -> list[list[str]]:
        """Return the words of each text, as TextVectorization splits them."""
        split = tf.strings.split(self(tf.constant(list(texts), tf.string)))
        return [[word.decode() for word in each] for each in split.to_list()]

    def get_config(self) -> dict:
        """Return the arguments."""
        return {"lower": self.lower, "contractions": self.contractions}

    @classmethod
    def from_config(cls, config: dict) -> SplitWords:
        """Return the object from its config."""
        return cls(**config)
