"""language_model_batches: texts as parallel streams of words, for a language model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_transfer._arguments import whole_number
from keras_transfer.data.texts import checked_texts
from keras_transfer.data.word_vocabulary import END
from keras_transfer.data.word_vocabulary import PADDING
from keras_transfer.data.word_vocabulary import word_vectorizer

AT_ONCE = 256  # number of texts that are vectorized together


def language_model_batches(
    texts: Sequence[str],
    vocabulary: Sequence[str],
    batch_size: int,
    *,
    sequence_length: int = 70,
    seed: int | None = None,
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    """Cut texts into parallel streams of words, in which each word predicts the next.

    All texts are joined into one stream of words, with `"[END]"` after each text. The
    stream is cut into `batch_size` streams of equal length, one for each row of a
    batch. Batch i has the words from `i * sequence_length` on of each stream, and the
    targets are the words one place later. So each row continues where the same row of
    the previous batch ended, and the state that a
    `kt.models.RecurrentLanguageModel` carries from batch to batch is the right one.
    The first batch of each pass restarts the state.

    No word is padding. Up to `batch_size - 1` words at the end of the stream, which
    fill no row, are left out. Give `fit` `shuffle=False`, or Keras warns that it cannot
    shuffle a dataset.

    Args:
        texts: List, array or pandas column of strings. Labels are not needed.
        vocabulary: List of words, as `kt.data.word_vocabulary` returns it. Other words
            become `"[UNK]"`.
        batch_size: Int of at least 1, the number of parallel streams. It must be the
            `batch_size` of the model.
        sequence_length: Int of at least 1, the words of a row, through which the
            gradient flows back. Defaults to 70.
        seed: Int of 0 or more: each pass has the texts in another random order, the
            same orders in each run. Defaults to `None`, the order of the data, which
            is right for validation.
        drop_remainder: Bool, whether to leave out the last batch if it is shorter than
            `sequence_length`. Then XLA compiles one shape only. Defaults to `False`.

    Returns:
        A `tf.data.Dataset` of pairs `(x, y)` that has a known number of batches. `x` is
        a dict of `"token_ids"`, int32 of shape `(batch_size, sequence_length)`, and
        `"restart"`, bool of shape `(batch_size,)`, which is True in the first batch of
        a pass. `y` is int32, of the shape of the ids.

    Example:
        ```python
        import keras_transfer as kt

        texts = ["one two three", "four five"]
        words = kt.data.word_vocabulary(texts)
        batches = kt.data.language_model_batches(texts, words, 1, sequence_length=3)
        (x, y), _ = batches.as_numpy_iterator()
        assert [words[i] for i in x["token_ids"][0]] == ["one", "two", "three"]
        assert [words[i] for i in y[0]] == ["two", "three", "[END]"]
        ```

    Raises:
        TypeError: If `texts` or `vocabulary` is not a list of strings.
        ValueError: If a text has no words, if there are too few words for
            one batch, or if an argument is out of range.

    Reference:
        Merity, Keskar and Socher, 2018, "Regularizing and Optimizing LSTM Language
        Models", arXiv 1708.02182; Howard and Ruder, 2018, "Universal Language Model
        Fine-tuning for Text Classification", arXiv 1801.06146.
    """
    batch_size = whole_number("batch_size", batch_size)
    sequence_length = whole_number("sequence_length", sequence_length)
    if seed is not None:
        seed = whole_number("seed", seed, 0)
    ids = _ids(np.array(checked_texts(texts), object), vocabulary)
    total = sum(map(len, ids))
    steps = total // batch_size - 1  # the last word of a stream has no next word
    if steps < sequence_length:
        raise ValueError(
            f"The {len(ids)} texts have {total:,} words, so each of the {batch_size} "
            f"streams predicts {max(steps, 0)} words, which is shorter than "
            f"sequence_length={sequence_length}. Pass more texts, or lower batch_size "
            "or sequence_length."
        )
    count = steps // sequence_length
    if steps % sequence_length and not drop_remainder:
        count += 1
    passes = itertools.count()

    def batches() -> Iterator[tuple]:
        order = np.arange(len(ids))
        if seed is not None:
            np.random.default_rng([seed, next(passes)]).shuffle(order)
        stream = np.concatenate([ids[place] for place in order])
        rows = stream[: batch_size * (steps + 1)].reshape(batch_size, steps + 1)
        for number in range(count):
            first = number * sequence_length
            last = min(first + sequence_length, steps)
            restart = np.full(batch_size, number == 0)
            x = {"token_ids": rows[:, first:last], "restart": restart}
            yield x, rows[:, first + 1 : last + 1]

    even = drop_remainder or steps % sequence_length == 0
    words = tf.TensorSpec((batch_size, sequence_length if even else None), tf.int32)
    restart = tf.TensorSpec((batch_size,), tf.bool)
    signature = ({"token_ids": words, "restart": restart}, words)
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))
    return dataset.prefetch(tf.data.AUTOTUNE)


def _ids(texts: np.ndarray, vocabulary: Sequence[str]) -> list[np.ndarray]:
    """Return the ids of each text, with the end at the end."""
    vectorizer = word_vectorizer(vocabulary)
    words = list(vocabulary)
    padding, end = words.index(PADDING), words.index(END)
    found = []
    for first in range(0, len(texts), AT_ONCE):
        some = keras.ops.convert_to_numpy(vectorizer(texts[first : first + AT_ONCE]))
        found += [row[row != padding] for row in some.astype("int32")]
    for place, row in enumerate(found):
        if not len(row):
            raise ValueError(
                f"Text {place} is {texts[place][:40]!r}, which has no words. Remove "
                "texts without words."
            )
    return [np.append(row, np.int32(end)) for row in found]
