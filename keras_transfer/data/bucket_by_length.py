"""bucket_by_length: texts of similar length together, so few tokens are padding."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer._arguments import whole_number
from keras_transfer.data.buckets import Buckets
from keras_transfer.data.buckets import take_rows
from keras_transfer.data.examples import check_dense
from keras_transfer.data.examples import check_finite
from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import DATASET
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import map_arrays
from keras_transfer.data.labels import labels_of
from keras_transfer.data.token_lengths import checked_boundaries
from keras_transfer.data.token_lengths import choose_boundaries
from keras_transfer.data.token_lengths import Preprocessed

NAME = "texts_or_dataset"
MOST = 6  # lengths that are chosen
BATCHES = 4  # of each length, at least on average


def bucket_by_length(
    texts_or_dataset: tuple | tf.data.Dataset,
    preprocessor: keras.Layer,
    batch_size: int,
    *,
    boundaries: Sequence[int] | None = None,
    equal_tokens: bool = False,
    static_shapes: bool = False,
    seed: int | None = 0,
) -> tf.data.Dataset:
    """Preprocess texts into batches that are padded to a few lengths, not to one.

    A preprocessor of keras-hub pads every text to its `sequence_length`, 512 by
    default. The sentences of SST-2 have 24 tokens on average, so most of the work of a
    model would be padding. Here each text goes to the bucket of the first boundary that
    is not below its number of tokens, special tokens included, and is padded to this
    length. A text that is longer than the last boundary is padded to the
    `sequence_length` of the preprocessor. Each batch comes from one bucket. Each
    example comes once in each pass, and only texts that the preprocessor itself would
    cut are cut.

    A model that leaves out padding, as the text models of keras-hub do by their
    `padding_mask`, has the same outputs at each length. Preprocessors without this
    mask, that pad on the left, or that make the labels are refused. A layer of your own
    that reads padded positions would depend on the length.

    The dataset serves `fit` of a `TransferClassifier`, `kt.fine_tune`, and a keras-hub
    Task whose `preprocessor` is None: set `task.preprocessor = None` first, or the Task
    would preprocess twice. Give `fit` `shuffle=False`. TensorFlow traces a training
    step once for all lengths. XLA, which Keras uses where `jit_compile` is not False,
    compiles it once for each length and size of a batch. Give evaluation data the same
    `boundaries`, so no other lengths are compiled, and `seed=None`.

    Texts are preprocessed once, here, and are kept in memory: 9 bytes for each padded
    token of BERT.

    Args:
        texts_or_dataset: Tuple `(texts, y)` or `(texts, y, sample_weight)` of arrays,
            lists or pandas columns, or a finite `tf.data.Dataset` of these, batched or
            not. `texts` are strings, or a tuple of arrays of strings for several
            segments. `y` and `sample_weight` may be structures of arrays.
        preprocessor: Preprocessor of keras-hub for classification or regression, such
            as `task.preprocessor`. A copy is used; the preprocessor is not changed.
        batch_size: Number of examples in a batch, 1 or more. With `equal_tokens`, in a
            batch of the longest bucket.
        boundaries: Padded lengths in tokens, increasing, none above the
            `sequence_length` of the preprocessor. Defaults to `None`: at most 6, fewer
            for fewer than 24 batches, chosen so the texts of the data have as few
            padded tokens as possible. The last one is the length of the longest text.
        equal_tokens: Whether all batches have about the same number of tokens, so
            batches of shorter texts have more examples. Defaults to `False`.
        static_shapes: Whether the last batch of each bucket, which may be short, is
            filled up with repeated rows of weight 0. Then each batch has sample
            weights, and each bucket has one shape, which replicas of a
            `tf.distribute` strategy and TPUs need. Metrics leave out these rows only in
            `compile(weighted_metrics=...)`. Defaults to `False`: short batches.
        seed: Seed of the order, a whole number of 0 or more. Each pass over the dataset
            has another order, the same ones in each run. `None` keeps the order of the
            data in each bucket, short buckets first. Defaults to 0.

    Returns:
        A `tf.data.Dataset` of batches `(x, y)` or `(x, y, sample_weight)` that has a
        known number of batches and can be gone through again. `x` is the dictionary
        that the preprocessor makes, with Booleans as int32.

    Example:
        ```python
        import keras_hub
        import keras_transfer as kt

        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "not"]
        preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
            keras_hub.models.BertTokenizer(vocabulary=words), sequence_length=512
        )
        texts, y = ["good", "bad", "not good", "not good not bad"], [1, 0, 0, 1]
        batches = kt.data.bucket_by_length(
            (texts, y), preprocessor, batch_size=2, boundaries=[3, 8]
        )
        lengths = [x["token_ids"].shape[1] for x, y in batches]
        assert sorted(lengths) == [3, 8] and len(batches) == 2
        ```

    Raises:
        TypeError: If the data are of another kind or ragged, the texts are not strings,
            or `preprocessor` is a model.
        ValueError: If the data are empty, have no end or no labels, or differ in
            length; if `boundaries` are not increasing or above the `sequence_length`;
            or if the preprocessor has no `sequence_length` or does not suit, as above.

    Reference:
        Khomenko et al., 2016, "Accelerating Recurrent Neural Network Training Using
        Sequence Bucketing and Multi-GPU Data Parallelization", arXiv:1708.05604.
    """
    whole_number("batch_size", batch_size)
    if seed is not None:
        whole_number("seed", seed, 0)
    texts, *rest = _read(texts_or_dataset)
    preprocessed = Preprocessed(preprocessor, texts)
    lengths, limit = preprocessed.lengths, preprocessed.sequence_length
    if boundaries is None:
        most = max(1, min(MOST, len(lengths) // (BATCHES * batch_size)))
        boundaries = choose_boundaries(lengths, most)
    else:
        boundaries = checked_boundaries(boundaries, limit)
    if boundaries[-1] < lengths.max():
        boundaries = [*boundaries, limit]
    if static_shapes and len(rest) == 1:
        rest.append(np.ones(len(lengths), "float32"))
    bucket = np.searchsorted(boundaries, lengths)
    groups, sizes = [], []
    for number in np.unique(bucket):
        chosen = np.flatnonzero(bucket == number)
        x = preprocessed.rows(chosen, boundaries[number])
        groups.append((x, *take_rows(tuple(rest), chosen)))
        tokens = batch_size * boundaries[bucket.max()]
        sizes.append(tokens // boundaries[number] if equal_tokens else batch_size)
    buckets = Buckets(groups, sizes, seed, static_shapes=static_shapes)
    return buckets.dataset(itertools.count().__next__)


def _read(data: Any) -> tuple:
    """Return texts, labels and perhaps weights as arrays, checked.

    Raises:
        TypeError: If they are of another kind, ragged, or the texts are not strings.
        ValueError: If they are empty, have no end or no labels, or differ in length.
    """
    if kind_of(data, NAME, py_dataset=False) == DATASET:
        labels_of(data.element_spec)
        check_dense(data.element_spec, NAME)
        check_finite(data, NAME)
        texts = keras.tree.flatten(data.element_spec[0])
        if all(spec.shape.rank == 0 for spec in texts):
            data = data.batch(256)
        batches = list(data.as_numpy_iterator())
        if not batches:
            raise ValueError(f"`{NAME}` is empty: it has no example.")
        data = keras.tree.map_structure(lambda *x: np.concatenate(x), *batches)
    elif len(data) == 3 and data[2] is None:
        data = data[:2]
    labels_of(data)
    arrays = map_arrays(lambda x: x, data)
    count_rows(arrays, NAME)
    for text in keras.tree.flatten(arrays[0]):
        if text.dtype.kind not in "OSU" or text.ndim != 1:
            raise TypeError(
                f"The texts have dtype {text.dtype} and shape {text.shape}, but they "
                "must be strings, one for each example. Data that are preprocessed "
                "already have one length."
            )
    return arrays
