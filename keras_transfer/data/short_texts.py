"""Texts of a Task padded to the longest of them, not to the length of the Task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import _keras
from keras_transfer.data.epochs import Epochs
from keras_transfer.data.token_lengths import Preprocessed

MULTIPLE = 8  # of tokens, as fast kernels of accelerators need
TESTED = 4  # texts
CLOSE = 1e-5


class ShortTexts(NamedTuple):
    """The padded length of all texts of a run, and what preprocesses them to it."""

    length: int
    full_length: int
    preprocess: Callable

    def fit(self, model: keras.Model, **arguments: Any) -> None:
        """Fit a Task on datasets of texts, as `model.fit` does at the full length."""
        for name in ("x", "validation_data"):
            if arguments[name] is not None:
                arguments[name] = self.batches(arguments[name])
        _keras.trace_once(model, arguments["x"])
        # The fit of a Task would preprocess once more, and does nothing else.
        keras.Model.fit(model, **arguments)

    def batches(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Return the inputs of the model from batches of texts."""
        dataset = dataset.map(self._of_batch, num_parallel_calls=tf.data.AUTOTUNE)
        return dataset.prefetch(tf.data.AUTOTUNE)

    def _of_batch(self, x: Any, *labels_and_weights: Any) -> tuple:
        return (self.preprocess(x), *labels_and_weights)


def short_texts(model: keras.Model, data: Any, validation_data: Any) -> Any:
    """Return the `ShortTexts` of a run, or None where its texts stay as they are.

    Outputs must not depend on the padded length. The shortest texts are run at both
    lengths to test this.

    Args:
        model: The model.
        data: Training data of the run. Only `Epochs` of texts can be shortened.
        validation_data: The same, or None.
    """
    preprocessor = getattr(model, "preprocessor", None)
    given = [each for each in (data, validation_data) if each is not None]
    own = any(
        getattr(type(model), name, len).__module__.partition(".")[0] != "keras_hub"
        for name in ("fit", "evaluate", "preprocess_samples")
    )
    if preprocessor is None or own or not all(map(_has_texts, given)):
        return None
    try:
        texts = [Preprocessed(preprocessor, each.arrays[0]) for each in given]
    except ValueError:  # such as a preprocessor that pads on the left
        return None
    longest = max(int(each.lengths.max()) for each in texts)
    length, full = -(-longest // MULTIPLE) * MULTIPLE, texts[0].sequence_length
    if length >= full:
        return None
    rows = np.argsort(texts[0].lengths, kind="stable")[:TESTED]
    outputs = [
        keras.tree.flatten(model(_dense(texts[0].rows(rows, each)), training=False))
        for each in (full, length)
    ]
    for whole, cut in zip(*outputs, strict=True):
        whole, cut = (keras.ops.convert_to_numpy(each) for each in (whole, cut))
        if whole.shape != cut.shape:
            return None
        if np.abs(whole - cut).max() > CLOSE * max(1.0, np.abs(whole).max()):
            return None
    return ShortTexts(length, full, texts[0].at(length))


def _has_texts(data: Any) -> bool:
    """Return whether data are arrays of one text, or of several, for each example."""
    if not isinstance(data, Epochs) or isinstance(data.arrays[0], dict):
        return False
    texts = keras.tree.flatten(data.arrays[0])
    return all(text.dtype.kind in "OSU" and text.ndim == 1 for text in texts)


def _dense(rows: Any) -> Any:
    return keras.tree.map_structure(keras.ops.convert_to_tensor, rows)
