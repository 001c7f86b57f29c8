"""Find test examples that are also training examples, by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import batches_of
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import map_arrays


def overlap_notes(data: Any, test: Any) -> list[str]:
    """Return a note if test examples are training examples."""
    common = count_common(_inputs_of(data), _inputs_of(test))
    if not common:
        return []
    return [
        f"{common} test example(s) are also in the training data, so the scores are "
        "too high. Remove them from one of the two."
    ]


def count_common(train: Iterable[Any], test: Iterable[Any]) -> int:
    """Return how many test examples have the inputs of a training example.

    Args:
        train: Batches of the inputs of training.
        test: Batches of the inputs of the test.
    """
    known = {each for batch in train for each in _digests(batch)}
    return sum(each in known for batch in test for each in _digests(batch))


def content_of(batches: Iterable[tuple]) -> str:
    """Return a fingerprint of examples that does not depend on their order."""
    digests = sorted(each for batch in batches for each in _digests(batch))
    return hashlib.blake2b(b"".join(digests), digest_size=8).hexdigest()


def _digests(inputs: Any) -> Iterator[bytes]:
    """Yield a fingerprint of each row, which does not depend on the dtype."""
    arrays = keras.tree.flatten(map_arrays(np.asarray, inputs))
    for row in range(len(arrays[0])):
        digest = hashlib.blake2b(digest_size=16)
        for array in arrays:
            digest.update(_content(array[row]))
        yield digest.digest()


def _content(value: Any) -> bytes:
    array = np.asarray(value)
    if array.dtype.kind in "biuf":
        return str(array.shape).encode() + array.astype("float64").tobytes()
    words = [x if isinstance(x, bytes) else str(x).encode() for x in array.flat]
    return b"".join(len(word).to_bytes(8, "little") + word for word in words)


def _inputs_of(data: Any) -> Iterator[Any]:
    if isinstance(data, tuple):
        yield data[0]
    elif kind_of(data, x_alone=True) == ARRAYS:
        yield data
    else:
        for batch in batches_of(data):
            yield batch[0] if isinstance(batch, tuple) else batch
