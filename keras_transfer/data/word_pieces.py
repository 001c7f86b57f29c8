"""WordPieces: the sub-word tokens of words, and where each word begins."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import tensorflow as tf

from keras_transfer.data.vocabulary import has_vocabulary

INPUTS = ("token_ids", "padding_mask", "segment_ids")
POSITIONS = "word_positions"
SPECIAL = ("start_token_id", "end_token_id", "pad_token_id")


class WordPieces:
    """Tokens of sentences whose words are known, for encoders of keras-hub.

    Each word is tokenized on its own, so no token belongs to two words. A tokenizer of
    byte pairs (RoBERTa) gets a space before each word, as within a text.

    Args:
        tokenizer: Tokenizer of keras-hub that adds a start and an end token.
        segment_ids: Whether the backbone takes `segment_ids`, which are 0.

    Raises:
        TypeError: If `tokenizer` is not a tokenizer of keras-hub.
        ValueError: If it has no start, end or padding token, or pads itself.
    """

    def __init__(self, tokenizer: keras.Layer, *, segment_ids: bool) -> None:
        import keras_hub

        if not isinstance(tokenizer, keras_hub.tokenizers.Tokenizer):
            raise TypeError(
                f"The tokenizer is a {type(tokenizer).__name__}, but it must be a "
                "tokenizer of keras-hub, such as `preprocessor.tokenizer` of a Task."
            )
        if getattr(tokenizer, "sequence_length", None) is not None:
            raise ValueError(
                f"The {type(tokenizer).__name__} pads to sequence_length="
                f"{tokenizer.sequence_length} itself. Make it without sequence_length."
            )
        self.tokenizer = tokenizer
        self.segment_ids = segment_ids
        if has_vocabulary(tokenizer):
            self._special()
        self.spaced = isinstance(tokenizer, keras_hub.tokenizers.BytePairTokenizer)

    def tokens(self, words: tf.RaggedTensor) -> tf.RaggedTensor:
        """Return int32 `(sentences, words, pieces)` for strings `(sentences, words)`.

        A word without any piece, such as a control character, gets one unknown token.
        """
        flat = words.flat_values
        pieces = self.tokenizer(tf.strings.join([" ", flat]) if self.spaced else flat)
        if isinstance(pieces, list):  # keras-hub's answer outside of a graph
            counts = [len(each) for each in pieces]
            values = tf.constant(list(itertools.chain(*pieces)), "int32")
            pieces = tf.RaggedTensor.from_row_lengths(values, counts)
        unknown = tf.fill([tf.shape(flat)[0], 1], self._unknown())
        empty = tf.cast(tf.equal(pieces.row_lengths(), 0), "int64")
        unknown = tf.RaggedTensor.from_tensor(unknown, lengths=empty)
        return words.with_flat_values(tf.concat([pieces, unknown], axis=1))

    def inputs(
        self,
        tokens: tf.RaggedTensor,
        most: int,
        *,
        length: int | None = None,
        words: int | None = None,
    ) -> dict[str, tf.Tensor]:
        """Return the inputs of the model.

        Args:
            tokens: As from `tokens`.
            most: Greatest number of tokens, with the start and the end token.
            length: Number of tokens to which sentences are padded. Defaults to None:
                the largest number in a sentence.
            words: Number of words to which positions are padded. Defaults to None: the
                largest number in a sentence.

        Returns:
            Dictionary of int32 tensors: the inputs of the backbone, and
            `word_positions`, the position of the first token of each word that is not
            cut off, padded with -1.
        """
        room = most - 2
        start, end, pad = self._special()
        flat = tokens.merge_dims(1, 2)[:, :room]
        rows = tf.shape(flat)[:1]
        ends = [tf.fill([rows[0], 1], each) for each in (start, end)]
        packed = tf.concat([ends[0], flat, ends[1]], axis=1)
        shape = [None, length]
        found = {
            "token_ids": packed.to_tensor(pad, shape=shape),
            "padding_mask": tf.ones_like(packed).to_tensor(0, shape=shape),
        }
        if self.segment_ids:
            found["segment_ids"] = tf.zeros_like(found["token_ids"])
        counts = tokens.with_values(tokens.values.row_lengths())
        before = tf.cumsum(tf.pad(counts.values, [[0, 1]]), exclusive=True)
        of_row = tf.repeat(tf.gather(before, counts.row_starts()), counts.row_lengths())
        first = counts.with_values(tf.cast(before[:-1] - of_row, "int32"))
        first = tf.ragged.boolean_mask(first, first < room)
        positions = (first + 1).to_tensor(-1, shape=[None, words])
        return {name: tf.cast(each, "int32") for name, each in found.items()} | {
            POSITIONS: positions
        }

    def _special(self) -> list[int]:
        """Return the ids of the start, the end and the padding token."""
        found = {name: getattr(self.tokenizer, name, None) for name in SPECIAL}
        missing = [name for name, value in found.items() if value is None]
        if missing:
            raise ValueError(
                f"The {type(self.tokenizer).__name__} has no {missing}. Only "
                "tokenizers that put a token before and after a text are possible, "
                "such as those of BERT, RoBERTa, DistilBERT, ALBERT, DeBERTa, ELECTRA."
            )
        return [int(value) for value in found.values()]

    def _unknown(self) -> int:
        """Return the id of the unknown token, or of the end token without one."""
        for name in ("oov_token", "unk_token"):
            token = getattr(self.tokenizer, name, None)
            if isinstance(token, str):
                return int(self.tokenizer.token_to_id(token))
        return self._special()[1]


def split_words(texts: Any, *, punctuation: bool) -> tf.RaggedTensor:
    """Return the words of texts: split at spaces, and at each punctuation mark.

    Args:
        texts: Strings `(batch,)`.
        punctuation: Whether each character that is not a letter, a mark, a digit or a
            space is a word of its own.
    """
    if punctuation:
        texts = tf.strings.regex_replace(texts, r"([^\pL\pM\pN\s])", r" \1 ")
    return tf.strings.split(texts)
