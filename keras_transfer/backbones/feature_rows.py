"""Read the examples for a feature cache: batches of arrays, checked and counted."""

import warnings
from collections.abc import Iterable
from collections.abc import Iterator

import keras
import numpy as np

from keras_transfer._arguments import whole_number
from keras_transfer.backbones.feature_shards import Shards
from keras_transfer.backbones.fingerprint import RowDigest


class ArrayBatches:
    """Batches `(x, y, weight)` of whole arrays, the same in each pass."""

    def __init__(self, arrays: tuple | list, batch_size: int):
        self._arrays = tuple(arrays)
        while self._arrays and self._arrays[-1] is None:
            self._arrays = self._arrays[:-1]
        self._size = whole_number("batch_size", batch_size)
        triple(self._arrays)
        flat = keras.tree.flatten(self._arrays)
        for array in flat:
            if not getattr(array, "shape", None):
                raise TypeError(
                    f"The dataset has a {type(array).__name__} where it needs an array "
                    "of examples. Convert lists to arrays with np.asarray."
                )
        lengths = [len(array) for array in flat]
        if len(set(lengths)) != 1:
            raise ValueError(
                f"The arrays have different numbers of rows: {lengths}. Pass one row "
                "for each example in every array."
            )
        self._rows = lengths[0]
        self.batches = -(-self._rows // self._size)

    def begin_twice(self) -> list[tuple]:
        """Return the first batch of two passes."""
        first = next(iter(self), None)
        return [] if first is None else [first, first]

    def __iter__(self) -> Iterator[tuple]:
        for start in range(0, self._rows, self._size):
            part = _cut(self._arrays, slice(start, start + self._size))
            yield triple(keras.tree.map_structure(_array, part))


class Rows:
    """One pass over batches that returns pieces of any size."""

    def __init__(
        self, batches: Iterable[tuple], progress: keras.utils.Progbar | None = None
    ):
        self._batches = iter(batches)
        self._rest = None
        self._pulled = 0
        self._progress = progress

    def peek(self) -> tuple | None:
        """Return the next rows without consuming them, or None at the end."""
        while self._rest is None or not count(self._rest):
            self._rest = next(self._batches, None)
            if self._rest is None:
                return None
            if self._pulled and self._progress:
                self._progress.update(self._pulled)
            self._pulled += 1
        return self._rest

    def take(self, limit: int | None = None) -> tuple:
        """Return and consume the rest of a batch, at most `limit` rows."""
        rest = self.peek()
        size = count(rest) if limit is None else min(limit, count(rest))
        self._rest = _cut(rest, slice(size, None))
        return _cut(rest, slice(size))

    def close(self) -> None:
        """End the progress bar."""
        if self._progress:
            self._progress.update(self._pulled, finalize=True)


def count(batch: tuple) -> int:
    """Return the number of examples in a batch."""
    return len(keras.tree.flatten(batch)[-1])


def triple(batch: tuple) -> tuple:
    """Return `(x, y, weight)` for `(x, y)`, with weights of 1, or for all three.

    Args:
        batch: A tuple of structures of arrays, or of their tensor specs.
    """
    if not isinstance(batch, tuple) or len(batch) not in (2, 3):
        raise ValueError(
            "The dataset has no labels, but cache_features needs (x, y) or (x, y, "
            "sample_weight). To get only features, call `backbone.predict(x)`."
        )
    if len(batch) == 3:
        return batch
    first = keras.tree.flatten(batch[1])[0]
    rows = first.shape[:1] if isinstance(first, np.ndarray) else ()
    return (*batch, np.ones(rows, "float32"))


def check_first(batches: list[tuple], inputs: object) -> tuple:
    """Return the first batch of two passes, after checks with the model's inputs."""
    batch = batches[0] if batches else ()
    shapes = [np.shape(array) for array in keras.tree.flatten(batch)]
    if not batches or (0,) in [shape[:1] for shape in shapes]:
        raise ValueError(
            "The dataset is empty, so there is nothing to cache. Pass at least one "
            "example."
        )
    rows = {shape[:1] for shape in shapes}
    if () in rows or len(rows) > 1 or _one_axis_short(batch[0], inputs):
        raise ValueError(
            f"The dataset is not batched: its first element has the shapes {shapes}, "
            "but the first axis of each must be the examples, with the same length. "
            "Add `.batch(32)`."
        )
    for array in keras.tree.flatten(batch[1:]):
        if array.dtype.kind in "OSUcmM":
            raise TypeError(
                f"Labels and weights must be numbers, but have the dtype "
                f"{array.dtype}. Map class names to integers first."
            )
    if len(batches) == 1:
        raise ValueError(
            "The dataset is empty when read a second time, because it reads a used-up "
            "generator. Pass a function that returns a new generator to "
            "tf.data.Dataset.from_generator."
        )
    if _digest(batch) != _digest(batches[1]):
        warnings.warn(
            "Two passes over the dataset start with different examples, so it augments "
            "or shuffles at random. The cache keeps one variant of each example in one "
            "order, and with `path` a later run will find the cache stale. Shuffle "
            "after the cache, and leave out random augmentation.",
            stacklevel=3,
        )
    return batch


def compare(folder: Shards, rows: Rows) -> None:
    """Consume the rows of all finished shards, and raise an error if any differ."""
    for entry in folder.entries:
        digest = RowDigest()
        left = entry["rows"]
        while left and rows.peek() is not None:
            piece = rows.take(left)
            digest.update(piece)
            left -= count(piece)
        if left or digest.value() != entry["data"]:
            _raise_stale(folder, f"the examples of {entry['file']} are not the same")
    if folder.complete and rows.peek() is not None:
        _raise_stale(folder, f"the dataset has more than its {folder.rows} examples")


def _raise_stale(folder: Shards, reason: str) -> None:
    raise ValueError(
        f"The feature cache {str(folder.folder)!r} is stale: {reason}. The data or "
        "their order changed, or the dataset shuffles or augments at random. Shuffle "
        "and augment after the cache. Delete the folder to make the cache again, or "
        "pass another folder."
    )


def _digest(batch: tuple) -> str:
    digest = RowDigest()
    digest.update(batch)
    return digest.value()


def _one_axis_short(x: object, inputs: object) -> bool:
    """Return whether an array is a single example for its input of the model."""
    if isinstance(x, dict) and isinstance(inputs, dict):
        pairs = [(x[key], inputs[key]) for key in x if key in inputs]
    else:
        x, inputs = keras.tree.flatten(x), keras.tree.flatten(inputs)
        pairs = list(zip(x, inputs)) if len(x) == len(inputs) else []
    # Keras adds a missing last axis of length 1.
    return any(
        spec is not None
        and np.ndim(array) == len(spec.shape) - 1
        and spec.shape[-1] != 1
        for array, spec in pairs
    )


def _cut(structure: object, part: slice) -> object:
    return keras.tree.map_structure(lambda x: x[part], structure)


def _array(x: object) -> np.ndarray:
    # NumPy 2 warns of np.asarray(x) for a tensor of TensorFlow.
    return x.numpy() if hasattr(x, "numpy") else np.asarray(x)
