"""The examples of a pilot, and which of them are held out of the trials."""

from __future__ import annotations

from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.data.epochs import Epochs
from keras_transfer.data.examples import batches_of
from keras_transfer.data.examples import map_arrays
from keras_transfer.data.short_texts import short_texts
from keras_transfer.fine_tuning.run import Run
from keras_transfer.losses.compiled_loss import BINARY
from keras_transfer.losses.compiled_loss import ONE_HOT
from keras_transfer.losses.compiled_loss import read_loss
from keras_transfer.losses.compiled_loss import SPARSE

FOLDS = 4
MOST = 4_000  # examples that a pilot reads
READ_AT_ONCE = 256


class Fold(NamedTuple):
    """The rows of a pilot's examples on which trials train, and the held-out rows."""

    train: np.ndarray
    held_out: np.ndarray


def folds(classes: np.ndarray | None, count: int, seed: int) -> list[Fold]:
    """Return folds of which each holds out a quarter of the examples, by class.

    The first example of each class, in an order by `seed`, is never held out if its
    class has fewer than `FOLDS` examples, so that trials know each class.

    Args:
        classes: The class number of each example, or None for other labels.
        count: Number of examples.
        seed: Seed of the order.
    """
    order = np.random.default_rng(seed).permutation(count)
    if classes is not None:
        order = order[np.argsort(classes[order], kind="stable")]
    fold = np.empty(count, int)
    fold[order] = np.arange(count) % FOLDS
    if classes is not None:
        for number in np.unique(classes):
            rows = order[classes[order] == number]
            if len(rows) < FOLDS:
                fold[rows[0]] = FOLDS
    return [
        Fold(np.flatnonzero(fold != each), np.flatnonzero(fold == each))
        for each in range(FOLDS)
    ]


def classes_of(run: Run, labels: Any) -> np.ndarray | None:
    """Return the class number of each example, or None if it has no single class."""
    said = read_loss(_keras.compile_arguments(run.model)["loss"])
    if keras.tree.is_nested(labels):
        return None
    if said.labels == ONE_HOT and labels.ndim == 2:
        return labels.argmax(-1)
    single = labels.ndim == 1 or labels.ndim == 2 and labels.shape[1] == 1
    if said.labels in (SPARSE, BINARY) and single:
        return labels.reshape(-1).astype("int64")
    return None


def read_examples(run: Run, most: int | None = None) -> tuple:
    """Return arrays `(x, y)` or `(x, y, sample_weight)` that the model itself takes.

    A dataset is read once. Texts are preprocessed. Of many examples, a random choice of
    `most` (`MOST` by default) is kept, because data may be sorted by class.
    """
    order = np.random.default_rng(run.seed).permutation(run.num_examples)
    rows = np.sort(order[: most or MOST])
    if isinstance(run.data, Epochs):
        arrays = take(run.data.arrays, rows)
    else:
        arrays = _read(run.data, rows)
    if getattr(run.model, "preprocessor", None) is None:
        return arrays
    return _preprocessed(run, arrays)


def take(arrays: Any, rows: np.ndarray) -> Any:
    """Return rows of all arrays of a structure."""
    return keras.tree.map_structure(lambda x: x[rows], arrays)


def _read(data: Any, rows: np.ndarray) -> tuple:
    """Return rows of a dataset, of which the numbers are sorted, in one pass."""
    parts, start = [], 0
    for batch in batches_of(data):
        arrays = map_arrays(np.asarray, tuple(batch))
        end = start + len(keras.tree.flatten(arrays)[0])
        inside = rows[(rows >= start) & (rows < end)] - start
        parts.append(take(arrays, inside))
        start = end
        if start > rows[-1]:
            break
    return keras.tree.lists_to_tuples(keras.tree.map_structure(_joined, *parts))


def _joined(*arrays: np.ndarray) -> np.ndarray:
    """Return arrays one after another.

    Batches of texts may be padded to several lengths. Then all are padded to the
    longest one with 0, which is "padding" in a `padding_mask`.
    """
    shape = np.max([each.shape[1:] for each in arrays], axis=0, initial=0)

    def padded(array: np.ndarray) -> np.ndarray:
        missing = shape - array.shape[1:]
        return np.pad(array, [(0, 0), *((0, int(count)) for count in missing)])

    return np.concatenate([padded(each) if each.ndim > 1 else each for each in arrays])


def _preprocessed(run: Run, arrays: tuple) -> tuple:
    epochs = Epochs(arrays, READ_AT_ONCE, None)
    short = short_texts(run.model, epochs, None)
    if short is None:
        dataset = epochs.in_order.map(run.model.preprocessor)
    else:
        dataset = epochs.in_order.map(lambda x, *rest: (short.preprocess(x), *rest))
    return _read(dataset, np.arange(epochs.examples))
