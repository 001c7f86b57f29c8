"""TaggingPreprocessor: words and tags as tokens and labels of a TokenClassifier."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer._arguments import unique_names
from keras_transfer._arguments import whole_number
from keras_transfer.data.buckets import Buckets
from keras_transfer.data.sentences import checked_sentences
from keras_transfer.data.token_lengths import checked_boundaries
from keras_transfer.data.token_lengths import choose_boundaries
from keras_transfer.data.word_pieces import POSITIONS
from keras_transfer.data.word_pieces import split_words
from keras_transfer.data.word_pieces import WordPieces

LENGTHS = 6  # to which sentences are padded, at most
SPECIAL = 2  # the start and the end token

Sentences = Sequence[Sequence[str]]


class TaggingPreprocessor:
    """Converts words and their tags to the inputs and labels of a `TokenClassifier`.

    A tokenizer splits a word into several tokens (sub-words). The features of a word
    are those of its first token, as in BERT, so the input `word_positions` has the
    position of the first token of each word, and -1 for padding. Labels and outputs
    have one row for each word, not for each token. A word of padding has weight 0.

    `kt.models.TokenClassifier` makes this object from a tokenizer, as its attribute
    `word_preprocessor`. Use `encode` for arrays, and `batches` for batches of sentences
    of similar length. Called with a string tensor, it splits texts into words, for
    `kt.export_serving`.

    Args:
        tokenizer: Tokenizer of a keras-hub encoder, such as a `BertTokenizer`.
        tags: Names of the tags, in the order of the logits.
        sequence_length: Greatest number of tokens, with the start and the end token, 3
            or more. Defaults to 512.
        segment_ids: Whether the backbone takes `segment_ids`. Defaults to `True`.
        split_punctuation: Whether each punctuation mark of a text is a word of its own.
            It has no effect on sentences that are lists of words. Defaults to `True`.

    Example:
        ```python
        import keras_hub
        import keras_transfer as kt

        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ada", "sing", "##s"]
        tokenizer = keras_hub.models.BertTokenizer(vocabulary=words, lowercase=True)
        pieces = kt.data.TaggingPreprocessor(tokenizer, ["O", "PER"])
        x, y, weight = pieces.encode([["Ada", "sings"], ["Ada"]], [["PER", "O"], ["O"]])
        assert x["token_ids"].tolist() == [[2, 5, 6, 7, 3], [2, 5, 3, 0, 0]]
        assert x["word_positions"].tolist() == [[1, 2], [1, -1]]
        assert y.tolist() == [[1, 0], [0, 0]] and weight.tolist() == [[1, 1], [1, 0]]
        ```

    Raises:
        TypeError: If `tokenizer` is not a tokenizer of keras-hub.
        ValueError: If the tokenizer has no start, end or padding token, or another
            argument is out of range.

    Reference:
        Devlin et al., 2019, "BERT: Pre-training of Deep Bidirectional Transformers for
        Language Understanding", arXiv:1810.04805, section 5.3 (the first sub-token).
    """

    def __init__(
        self,
        tokenizer: keras.Layer,
        tags: Sequence[str],
        *,
        sequence_length: int = 512,
        segment_ids: bool = True,
        split_punctuation: bool = True,
    ):
        self.tags = unique_names("tags", tags)
        self.sequence_length = whole_number("sequence_length", sequence_length, 3)
        self.segment_ids = bool(segment_ids)
        self.split_punctuation = bool(split_punctuation)
        self.tokenizer = tokenizer
        self._pieces = WordPieces(tokenizer, segment_ids=self.segment_ids)

    def __call__(self, texts: Any) -> dict[str, tf.Tensor]:
        """Return the inputs of the model for texts.

        Args:
            texts: String tensor `(batch,)`, or a list of strings.

        Returns:
            A dictionary of int32 tensors: `token_ids`, `padding_mask` and perhaps
            `segment_ids` `(batch, tokens)`, and `word_positions` `(batch, words)`.
        """
        tokens = self._pieces.tokens(self.words(texts))
        return self._pieces.inputs(tokens, self.sequence_length)

    def words(self, texts: Any) -> tf.RaggedTensor:
        """Return the words of texts as a ragged tensor of strings."""
        return split_words(texts, punctuation=self.split_punctuation)

    def complete(self, texts: tf.Tensor, outputs: dict) -> dict[str, tf.Tensor]:
        """Return the outputs of a served model with the words of the texts.

        `words` has the words, padded with `""` to the number of words in the outputs.
        Where it is `""`, `label` is `""` as well. A word that was cut off is not among
        them.

        Args:
            texts: String tensor `(batch,)`.
            outputs: Outputs of a signature by name.
        """
        if "label" not in outputs:
            return outputs
        shape = tf.shape(outputs["label"])
        words = self.words(texts)
        positions = self(texts)[POSITIONS]
        words = words.to_tensor("", shape=[None, None])[:, : shape[1]]
        words = tf.where(positions >= 0, words, "")
        label = tf.where(positions >= 0, outputs["label"], "")
        return {**outputs, "label": label, "words": words}

    def encode(
        self, sentences: Sentences, tags: Sentences | None = None
    ) -> dict[str, np.ndarray] | tuple:
        """Return arrays of the inputs, and with tags also labels and weights.

        All sentences are padded to the longest one. Words beyond `sequence_length` are
        cut off, and a warning tells their number.

        Args:
            sentences: Lists of words.
            tags: Lists of tags, one for each word. Defaults to None.

        Returns:
            The inputs of the model, or a tuple `(x, y, sample_weight)`: int32 labels
            and float32 weights `(sentences, words)`.

        Raises:
            TypeError: If a sentence is a string, or a word is not a string.
            ValueError: If there is no sentence, a sentence or a word is empty, a tag is
                unknown, or a sentence has more or fewer tags than words.
        """
        rows = self._rows(sentences, tags)
        lengths = self._lengths(rows)
        words = min(max(map(len, rows)), self.sequence_length - SPECIAL)
        return self._arrays(rows, tags, np.arange(len(rows)), int(lengths.max()), words)

    def batches(
        self,
        sentences: Sentences,
        tags: Sentences,
        batch_size: int,
        *,
        boundaries: Sequence[int] | None = None,
        seed: int | None = 0,
    ) -> tf.data.Dataset:
        """Return batches for `fit` that are padded to a few lengths, not to one.

        Tokens are padded to these lengths. Labels are padded to the number of words of
        the longest sentence in all batches, as `kt.fine_tune` needs.

        Args:
            sentences: Lists of words.
            tags: Lists of tags, one for each word.
            batch_size: Number of sentences in a batch, 1 or more.
            boundaries: As in `kt.data.bucket_by_length`.
            seed: As in `kt.data.bucket_by_length`.

        Returns:
            A `tf.data.Dataset` of batches `(x, y, sample_weight)` with a known number
            of batches, in another order in each pass.

        Raises:
            TypeError: As in `encode`.
            ValueError: As in `encode`, or if `boundaries` are not increasing.
        """
        whole_number("batch_size", batch_size)
        if seed is not None:
            whole_number("seed", seed, 0)
        rows = self._rows(sentences, tags)
        lengths = self._lengths(rows)
        if boundaries is None:
            boundaries = choose_boundaries(lengths, LENGTHS)
        else:
            boundaries = checked_boundaries(boundaries, self.sequence_length)
        if boundaries[-1] < lengths.max():
            boundaries = [*boundaries, self.sequence_length]
        bucket = np.searchsorted(boundaries, lengths)
        words = min(max(map(len, rows)), self.sequence_length - SPECIAL)
        groups = [
            self._arrays(rows, tags, np.flatnonzero(bucket == number), length, words)
            for number, length in enumerate(boundaries)
            if (bucket == number).any()
        ]
        buckets = Buckets(groups, [batch_size] * len(groups), seed)
        return buckets.dataset(itertools.count().__next__)

    def windows(self, sentences: Sentences) -> tuple[list[list[str]], list[int]]:
        """Return sentences in parts of at most `sequence_length` tokens.

        Args:
            sentences: Lists of words.

        Returns:
            The parts in order, and the number of the sentence of each part.

        Raises:
            TypeError: As in `encode`.
            ValueError: As in `encode`.
        """
        rows = self._rows(sentences, None)
        parts, origins = [], []
        for number, (words, counts) in enumerate(zip(rows, self._counts(rows))):
            start = used = 0
            for place, count in enumerate(counts):
                if used and used + count > self.sequence_length - SPECIAL:
                    parts.append(words[start:place])
                    origins.append(number)
                    start, used = place, 0
                used += count
            parts.append(words[start:])
            origins.append(number)
        return parts, origins

    def _rows(self, sentences: Any, tags: Any) -> list[list[str]]:
        rows = checked_sentences(sentences, "sentences")
        if tags is None:
            return rows
        named = checked_sentences(tags, "tags")
        if len(named) != len(rows):
            raise ValueError(
                f"There are {len(rows)} sentences, but tags for {len(named)}. Pass a "
                "list of tags for each sentence."
            )
        for number, (words, found) in enumerate(zip(rows, named)):
            if len(words) != len(found):
                raise ValueError(
                    f"Sentence {number} has {len(words)} words, but {len(found)} tags: "
                    f"{' '.join(words)[:80]!r}. Pass one tag for each word."
                )
            unknown = sorted(set(found) - set(self.tags))
            if unknown:
                raise ValueError(
                    f"Sentence {number} has the tags {unknown}, which are not in "
                    f"tags={list(self.tags)}. Correct them, or make the model with all "
                    "tags."
                )
        return rows

    def _counts(self, rows: list[list[str]]) -> list[np.ndarray]:
        """Return the number of tokens of each word."""
        tokens = self._pieces.tokens(tf.ragged.constant(rows))
        counts = tokens.values.row_lengths().numpy()
        return np.split(counts, np.cumsum([len(words) for words in rows])[:-1])

    def _lengths(self, rows: list[list[str]]) -> np.ndarray:
        """Return the number of tokens of each sentence, and warn of words cut off."""
        room, counts = self.sequence_length - SPECIAL, self._counts(rows)
        cut = np.array([(np.cumsum(each) - each >= room).sum() for each in counts])
        if cut.any():
            warnings.warn(
                f"{cut.sum()} words at the end of {np.count_nonzero(cut)} sentences "
                f"are beyond sequence_length={self.sequence_length} tokens and are "
                "left out. Raise sequence_length, or split these sentences.",
                stacklevel=3,
            )
        totals = np.array([each.sum() for each in counts])
        return np.minimum(totals, room) + SPECIAL

    def _arrays(
        self, rows: list, tags: Any, chosen: np.ndarray, length: int, words: int
    ) -> Any:
        """Return the arrays of chosen sentences, padded to these numbers."""
        sentences = [rows[number] for number in chosen]
        tokens = self._pieces.tokens(tf.ragged.constant(sentences))
        x = self._pieces.inputs(tokens, length, length=length, words=words)
        x = {name: each.numpy() for name, each in x.items()}
        if tags is None:
            return x
        numbers = {tag: number for number, tag in enumerate(self.tags)}
        weight = (x[POSITIONS] >= 0).astype("float32")
        y = np.zeros(weight.shape, "int32")
        for row, number in enumerate(chosen):
            found = [numbers[tag] for tag in tags[number]][: y.shape[1]]
            y[row, : len(found)] = found
        y[weight == 0] = 0
        return x, y, weight
