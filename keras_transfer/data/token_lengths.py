"""Token lengths of texts under a preprocessor, and padded lengths that fit them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer._arguments import whole_number
from keras_transfer.data.buckets import take_rows

READ_AT_ONCE = 256  # texts
FEW = 1000  # texts that Python preprocesses faster than TensorFlow traces a function
MASK = "padding_mask"
FINEST = 512  # different lengths between which boundaries are chosen


class Preprocessed:
    """Texts preprocessed at any length by a copy of a keras-hub preprocessor.

    Args:
        preprocessor: Layer with a `sequence_length`, which is not changed.
        texts: Array of strings, or tuple of arrays of strings, one for each segment.

    Raises:
        TypeError: If `preprocessor` is a Task.
        ValueError: If it has no `sequence_length` or cannot be copied, or if the output
            of a model could depend on the padded length: it returns no padding mask,
            pads on the left, or makes the labels.
    """

    def __init__(self, preprocessor: Any, texts: Any) -> None:
        _check(preprocessor)
        try:
            # Keras copies a layer by its config and its assets, such as a vocabulary.
            self.preprocessor = copy.deepcopy(preprocessor)
        except Exception as error:
            raise ValueError(
                f"The {type(preprocessor).__name__} cannot be copied: {error}. Another "
                "`sequence_length` would change the preprocessor itself. Register its "
                "class by keras.saving.register_keras_serializable() and give the "
                "class a get_config()."
            ) from error
        self.sequence_length = int(preprocessor.sequence_length)
        self.texts = texts
        dataset = self._batches(texts, self.sequence_length)
        _check_outputs(type(preprocessor).__name__, dataset.element_spec)
        masks = dataset.map(lambda x: x[MASK]).as_numpy_iterator()
        self.lengths = np.concatenate([_lengths(mask) for mask in masks])

    def rows(self, chosen: np.ndarray, length: int) -> Any:
        """Return the inputs of the model for chosen texts, padded to `length`.

        Raises:
            ValueError: If a text would lose tokens.
        """
        texts = take_rows(self.texts, chosen)
        if len(chosen) <= FEW:
            self.preprocessor.sequence_length = length
            segments = keras.tree.map_structure(lambda x: x.tolist(), (texts,))
            found = self._call(*(segments[0] if isinstance(texts, tuple) else segments))
            batches = [keras.tree.map_structure(np.asarray, found)]
        else:
            batches = list(self._batches(texts, length).as_numpy_iterator())
        rows = keras.tree.map_structure(lambda *x: np.concatenate(x), *batches)
        found = rows[MASK].shape[1], *_lengths(rows[MASK])
        if found != (length, *self.lengths[chosen]):
            raise ValueError(
                f"The copy of the {type(self.preprocessor).__name__} with "
                f"sequence_length={length} makes rows of {found[0]} tokens, of which "
                f"{max(found[1:])} at most are not padding. Texts of "
                f"{self.lengths[chosen].max()} tokens should fit without a cut."
            )
        return rows

    def at(self, length: int) -> Callable:
        """Return a function that preprocesses a batch of texts, padded to `length`."""
        self.preprocessor.sequence_length = length
        return lambda x: self._call(*(x if isinstance(x, tuple) else (x,)))

    def _batches(self, texts: Any, length: int) -> tf.data.Dataset:
        self.preprocessor.sequence_length = length
        dataset = tf.data.Dataset.from_tensor_slices(texts).batch(READ_AT_ONCE)
        return dataset.map(self._call).prefetch(1)

    def _call(self, *texts: Any) -> Any:
        if len(texts) == 1:
            return self.preprocessor(texts[0])
        # Without labels by name, keras-hub takes the second segment as labels.
        return self.preprocessor(texts, y=None, sample_weight=None)


def choose_boundaries(lengths: np.ndarray, most: int) -> list[int]:
    """Return at most `most` padded lengths under which texts have the fewest tokens.

    Each text is padded to the first length that is not below its own. The last length
    is the one of the longest text.
    """
    step = math.ceil(lengths.max() / FINEST)
    rounded = np.minimum(-(-lengths // step) * step, lengths.max())
    values, counts = np.unique(rounded, return_counts=True)
    texts = np.concatenate([[0], np.cumsum(counts)])
    # tokens[i, j]: of the texts of the lengths i to j, padded to length j.
    tokens = values * np.maximum(texts[1:] - texts[:-1, None], 0.0)
    tokens[np.tril_indices(len(values), -1)] = np.inf
    least, starts = tokens[0], []
    for _ in range(min(most, len(values)) - 1):
        # The last boundary is j, and the one before i - 1.
        sums = np.concatenate([tokens[:1], least[:-1, None] + tokens[1:]])
        starts.append(sums.argmin(0))
        least = sums.min(0)
    last, found = len(values) - 1, [int(values[-1])]
    for start in reversed(starts):
        if start[last] == 0:
            break
        last = start[last] - 1
        found.append(int(values[last]))
    return found[::-1]


def checked_boundaries(boundaries: Iterable[int], sequence_length: int) -> list[int]:
    """Return padded lengths given by a user, checked.

    Raises:
        ValueError: If they are not increasing whole numbers from 1 to
            `sequence_length`.
    """
    found = []
    for each in boundaries:
        found.append(whole_number("each boundary", each, most=None))
    if not found or sorted(set(found)) != found:
        raise ValueError(
            f"boundaries={found} must be one or more lengths in tokens, each greater "
            "than the one before, such as [16, 32, 64]."
        )
    if found[-1] > sequence_length:
        raise ValueError(
            f"boundaries={found} end above the sequence_length={sequence_length} of "
            "the preprocessor, where it cuts texts. Lower the boundaries, or make the "
            "preprocessor with a greater sequence_length."
        )
    return found


def _check(preprocessor: Any) -> None:
    name = type(preprocessor).__name__
    if isinstance(preprocessor, keras.Model):
        raise TypeError(
            f"`preprocessor` is the model {preprocessor.name!r}. Pass the preprocessor "
            "of the model, such as `task.preprocessor`."
        )
    length = getattr(preprocessor, "sequence_length", None)
    if not isinstance(length, int) or not callable(preprocessor):
        raise ValueError(
            f"`preprocessor` is a {name} with sequence_length={length!r}, so there is "
            "no length to which texts are padded. Pass a preprocessor of keras-hub "
            "such as BertTextClassifierPreprocessor(tokenizer, sequence_length=128)."
        )


def _check_outputs(name: str, spec: Any) -> None:
    x = spec
    if isinstance(spec, tuple):
        raise ValueError(
            f"The {name} makes the labels, one for each token, and a loss is a mean "
            "over all positions, so the loss would depend on the padded length. "
            "bucket_by_length takes preprocessors of classifiers and of regression."
        )
    if not isinstance(x, dict) or MASK not in x:
        keys = sorted(x) if isinstance(x, dict) else type(x).__name__
        raise ValueError(
            f"The {name} returns no {MASK!r} but {keys}. Its model does not leave out "
            "padding, as FNet, so outputs would depend on the padded length. Keep one "
            "sequence_length for this model."
        )


def _lengths(mask: np.ndarray) -> np.ndarray:
    """Return the number of tokens before the padding of each row."""
    mask = mask.astype(bool)
    if not mask[:, 0].all():
        raise ValueError(
            "The preprocessor pads on the left or returns a row without a token. The "
            "position of a token would depend on the padded length. Pass a "
            "preprocessor that pads on the right."
        )
    return mask.shape[1] - mask[:, ::-1].argmax(1)
