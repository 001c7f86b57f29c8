"""WordVectors: words, their vectors, and the Keras layers that look them up."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._arguments import whole_number
from keras_transfer.backbones.word_coverage import coverage_of
from keras_transfer.backbones.word_coverage import WordCoverage

UNKNOWN = ("zero", "mean", "random", "error")
OOV = "[UNK]"  # Keras's name of unknown words
MARKED_CASE = 0.01  # share of words with capitals in a vocabulary that has case


class WordVectors:
    """Words and their vectors, with the Keras layers that look them up.

    `kt.backbones.word_vectors` makes it. Row 0 of the embedding is padding, row 1 is
    for unknown words, and the words follow in their order. A model on texts is

        text = keras.Input((1,), dtype="string")
        x = vectors.embedding()(vectors.vocabulary_layer()(text))
        backbone = keras.Model(text, x)

    and `kt.models.TransferClassifier(backbone, 2)` averages the vectors of the known
    and unknown words without padding. Keras's `fit` and `predict` take texts as
    `tf.constant(texts)` or in a `tf.data.Dataset`, not as an array. `kt.export_serving`
    writes such a model, which then takes strings. Strings in a model need the
    TensorFlow backend. On JAX, start the model with
    `keras.Input((None,), dtype="int32")` and the embedding, pass it
    `vectors.ids(texts)`, and export it with `preprocessor=vectors.vocabulary_layer()`.

    Texts are split at spaces, after punctuation is separated from words. The text
    becomes lower case if the words are, and "don't" becomes "do n't" if there is a
    vector of "n't".

    Args:
        words: Tuple of different strings.
        vectors: Float array of shape `(words, width)`.
        unknown: As in `kt.backbones.word_vectors`.
        lowercase: As in `kt.backbones.word_vectors`.
        seed: As in `kt.backbones.word_vectors`.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        vectors = kt.backbones.word_vectors({"a": [1.0, 0.0], "joy": [0.0, 1.0]})
        assert "joy" in vectors and len(vectors) == 2 and vectors.width == 2
        assert vectors["joy"].tolist() == [0.0, 1.0]
        text = keras.Input((1,), dtype="string")
        backbone = keras.Model(
            text, vectors.embedding()(vectors.vocabulary_layer()(text))
        )
        model = kt.models.TransferClassifier(backbone, num_classes=2)
        ```

    Raises:
        ValueError: If `unknown` is neither a choice nor a word, or there are no words.

    Reference:
        Mikolov et al., 2013, "Efficient Estimation of Word Representations in Vector
        Space", arXiv 1301.3781.
    """

    def __init__(
        self,
        words: Sequence[str],
        vectors: np.ndarray,
        *,
        unknown: str = "zero",
        lowercase: bool | None = None,
        seed: int = 0,
    ):
        unknown_row = _unknown_row(words, vectors, unknown, seed)
        # Keras reserves the name, and texts with it are unknown words.
        kept = [i for i, word in enumerate(words) if word != OOV]
        if len(kept) < len(words):
            words, vectors = [words[i] for i in kept], vectors[kept]
        if not words:
            raise ValueError(
                "There are no words. Pass at least one word and its vector."
            )
        self.words = tuple(words)
        self.vectors = vectors
        self.unknown = unknown
        self._unknown_row = unknown_row
        self._index = {word: index for index, word in enumerate(self.words)}
        if lowercase is None:
            marked = sum(word != word.lower() for word in self.words)
            lowercase = marked < MARKED_CASE * len(self.words)
        self._split = _keras.SplitWords(bool(lowercase), "n't" in self._index)

    @property
    def width(self) -> int:
        """The number of features of a vector."""
        return self.vectors.shape[1]

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._index

    def __getitem__(self, word: str) -> np.ndarray:
        if word not in self._index:
            raise KeyError(
                f"There is no vector of {word!r}. Use `word in vectors` to ask, or "
                "`lookup`, which returns the vector of unknown words."
            )
        return self.vectors[self._index[word]]

    def __repr__(self) -> str:
        return f"WordVectors({len(self):,} words, width {self.width})"

    def lookup(self, words: Iterable[str]) -> np.ndarray:
        """Return the vectors of words, `(words, width)`, also of unknown ones.

        Args:
            words: Strings, looked up as they are.

        Raises:
            ValueError: With `unknown="error"`, if a word has no vector.
        """
        return self._table()[self._ids([list(words)])[0]]

    def ids(
        self, texts: Iterable[str], sequence_length: int | None = None
    ) -> np.ndarray:
        """Return the rows of the embedding for the words of texts, an int32 array.

        They are the same as those of `vocabulary_layer`, on every backend.

        Args:
            texts: Strings.
            sequence_length: Number of words to which texts are cut or padded with 0.
                Defaults to None, the longest of the texts.

        Raises:
            TypeError: If the texts are not strings.
            ValueError: With `unknown="error"`, if a word has no vector.
        """
        rows = self._ids(self._split.words(_strings(texts)))
        if sequence_length is not None:
            whole_number("sequence_length", sequence_length)
        longest = max(map(len, rows), default=1) or 1
        found = np.zeros((len(rows), sequence_length or longest), "int32")
        for row, ids in zip(found, rows, strict=True):
            row[: len(ids)] = ids[: len(row)]
        return found

    def vocabulary_layer(
        self, sequence_length: int | None = None, *, split: bool = True
    ) -> keras.Layer:
        """Return a new layer from strings to rows of the embedding.

        Args:
            sequence_length: Number of words to which texts are cut or padded. Defaults
                to None, the longest text of the batch.
            split: Whether strings are texts, for a `keras.layers.TextVectorization`,
                or single words, for a `keras.layers.StringLookup` that keeps their
                shape, in which "" is padding. Defaults to True.

        Raises:
            ValueError: With `unknown="error"`, because a layer cannot say which word
                is unknown.
        """
        if self.unknown == "error":
            raise ValueError(
                "unknown='error' cannot be a layer, because an error in a graph does "
                "not name the word. Pass vectors.ids(texts) to a model that starts "
                "with the embedding, or choose another `unknown`."
            )
        if not split:
            return keras.layers.StringLookup(
                vocabulary=list(self.words), mask_token="", oov_token=OOV
            )
        return keras.layers.TextVectorization(
            vocabulary=list(self.words),
            standardize=self._split,
            output_sequence_length=sequence_length,
        )

    def embedding(
        self, trainable: bool = False, **kwargs: object
    ) -> keras.layers.Embedding:
        """Return a new `keras.layers.Embedding` with the vectors, which masks padding.

        Args:
            trainable: Whether `fit` changes the vectors. Words that are not in the
                training texts stay where they are. Defaults to False.
            **kwargs: Other arguments of the layer, such as `name` and `dtype`.
        """
        return keras.layers.Embedding(
            len(self) + 2,
            self.width,
            mask_zero=True,
            weights=[self._table()],
            trainable=trainable,
            **kwargs,
        )

    def coverage(self, texts: Iterable[str], most: int = 10) -> WordCoverage:
        """Return how many words of texts have a vector. Print it.

        Args:
            texts: Strings.
            most: Number of the most frequent unknown words to return. Defaults to 10.

        Raises:
            TypeError: If the texts are not strings.
        """
        whole_number("most", most, 0)
        return coverage_of(self._split.words(_strings(texts)), self._index, most)

    def _table(self) -> np.ndarray:
        zeros = np.zeros((1, self.width), "float32")
        return np.concatenate([zeros, self._unknown_row[None], self.vectors])

    def _ids(self, texts: list[list[str]]) -> list[list[int]]:
        if self.unknown == "error":
            found = coverage_of(texts, self._index, 10)
            if found.unknown:
                raise ValueError(
                    f"{list(found.unknown)} have no vector. Remove these words, use a "
                    f"larger file, or choose another `unknown` than 'error'."
                )
        return [[self._index.get(word, -1) + 2 for word in words] for words in texts]


def _unknown_row(
    words: Sequence[str], vectors: np.ndarray, unknown: str, seed: int
) -> np.ndarray:
    whole_number("seed", seed, 0)
    if unknown in ("zero", "error"):
        return np.zeros(vectors.shape[1], "float32")
    if unknown == "mean":
        return vectors.mean(axis=0)
    if unknown == "random":
        drawn = np.random.default_rng(seed).normal(vectors.mean(0), vectors.std(0))
        return drawn.astype("float32")
    if unknown not in words:
        raise ValueError(
            f"unknown={unknown!r} is neither one of {UNKNOWN} nor a word that has a "
            "vector. Choose one of them."
        )
    return vectors[list(words).index(unknown)]


def _strings(texts: object) -> list[str]:
    texts = [texts] if isinstance(texts, str) else np.asarray(texts, object).ravel()
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(
                f"A text is {text!r}, a {type(text).__name__}. Pass a list or an array "
                "of str."
            )
    return list(texts)
