"""word_vectors: reads static vectors of words from a file or from arrays."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from keras_transfer._arguments import whole_number
from keras_transfer.backbones.word_files import read_rows
from keras_transfer.backbones.word_table import WordVectors


def word_vectors(
    source: str | os.PathLike | Sequence | Mapping,
    *,
    max_words: int | None = None,
    unknown: str = "zero",
    lowercase: bool | None = None,
    seed: int = 0,
) -> WordVectors:
    """Read the vectors of words, from a file or from arrays.

    Static vectors (word2vec, GloVe, fastText) have one vector for each word, learned
    from unlabeled text. A mean of them is the cheapest features of a text: it needs no
    network, and costs about 1 % of the time of a small transformer, but loses word
    order (benchmarks/README.md). Check the coverage first:
    `print(vectors.coverage(texts))`.

    These files are read: word2vec's text and binary format, GloVe's text, and
    fastText's `.vec`, also compressed by gzip. The format is found from the content. A
    row that cannot be read raises an error with its line number. If a word is there
    twice, the first row counts, and a warning has its place.

    Args:
        source: Path of a file; or a tuple `(words, vectors)` of strings and an array
            of shape `(words, width)`; or a dict from words to vectors. For gensim's
            `KeyedVectors` pass `(vectors.index_to_key, vectors.vectors)`.
        max_words: Integer, the number of words to keep, from the start, where the
            frequent words are. The rest of a file is not read. Defaults to `None`, all.
        unknown: The vector of words that have none. Defaults to `"zero"`.

            - `"zero"`: zeros.
            - `"mean"`: the mean of all vectors.
            - `"random"`: a normal vector with the mean and standard deviation of each
              feature, one for all unknown words.
            - `"error"`: `ids` and `lookup` raise an error that names the words.
            - a word of the file, such as `"<unk>"`: its vector.
        lowercase: Bool, whether texts become lower case. Defaults to `None`: if less
            than 1 % of the words have capitals.
        seed: Integer, the seed of `"random"`. Defaults to 0.

    Returns:
        A `kt.backbones.WordVectors`.

    Example:
        ```python
        import pathlib
        import keras_transfer as kt

        pathlib.Path("glove.txt").write_text("a 1 0\\njoy 0 1\\n")
        vectors = kt.backbones.word_vectors("glove.txt", unknown="mean")
        assert vectors.ids(["A joy!"]).tolist() == [[2, 3, 1]]
        assert vectors.lookup(["flop"]).tolist() == [[0.5, 0.5]]
        ```

    Raises:
        FileNotFoundError: If the file does not exist.
        TypeError: If `source` is none of these, or a word is not a string.
        ValueError: If a row of the file is broken, has another width, bytes that are
            not UTF-8, an empty word, or a number that is not finite; if the header
            does not fit the file; if the file is empty or of another format; if words
            and vectors differ in number; or if an argument is out of range.

    Reference:
        Mikolov et al., 2013, "Efficient Estimation of Word Representations in Vector
        Space", arXiv 1301.3781; Pennington, Socher and Manning, 2014, "GloVe: Global
        Vectors for Word Representation"; Bojanowski et al., 2017, "Enriching Word
        Vectors with Subword Information", arXiv 1607.04606.
    """
    if max_words is not None:
        whole_number("max_words", max_words)
    name = source if isinstance(source, str | os.PathLike) else "the arrays"
    rows = read_rows(source) if name is source else _rows_of(source)
    places: dict[str, str] = {}
    vectors, twice = [], []
    for place, word, vector in rows:
        if not word:
            raise ValueError(f"{name}, {place} has an empty word. Remove the row.")
        if not np.isfinite(vector).all():
            raise ValueError(
                f"{name}, {place} has numbers that are not finite in the vector of "
                f"{word!r}. Remove the row, or use a file that is not damaged."
            )
        if word in places:
            twice.append(f"{word!r} in {place}, first in {places[word]}")
            continue
        places[word] = place
        vectors.append(vector)
        if len(vectors) == max_words:
            break
    if twice:
        warnings.warn(
            f"{name} has {len(twice)} words twice, of which the first vector counts: "
            f"{'; '.join(twice[:5])}{'; ...' if len(twice) > 5 else ''}.",
            stacklevel=2,
        )
    return WordVectors(
        list(places),
        np.stack(vectors) if vectors else np.zeros((0, 1), "float32"),
        unknown=unknown,
        lowercase=lowercase,
        seed=seed,
    )


def _rows_of(source: object) -> Iterable[tuple[str, str, np.ndarray]]:
    if isinstance(source, Mapping):
        words, vectors = list(source), list(source.values())
    elif isinstance(source, tuple | list) and len(source) == 2:
        words, vectors = source
    else:
        raise TypeError(
            f"source is a {type(source).__name__}, but word_vectors takes the path of "
            "a file, a tuple (words, vectors), or a dict from words to vectors."
        )
    widths = {np.shape(vector) for vector in vectors}
    if len(words) != len(vectors) or len(widths) > 1:
        raise ValueError(
            f"There are {len(words)} words and {len(vectors)} vectors of the shapes "
            f"{sorted(widths)}. Pass one vector of the same width for each word."
        )
    if any(len(shape) != 1 or shape[0] < 1 for shape in widths):
        raise ValueError(
            f"Each vector has the shape {sorted(widths)[0]}, but a vector is a list of "
            "numbers. Pass vectors of shape (words, width)."
        )
    for number, (word, vector) in enumerate(zip(words, vectors, strict=True)):
        if not isinstance(word, str):
            raise TypeError(
                f"Word {number} is {word!r}, a {type(word).__name__}. Pass strings; "
                "decode bytes as UTF-8."
            )
        yield f"word {number}", str(word), np.asarray(vector, "float32")
