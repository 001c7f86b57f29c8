"""Hold out examples by their content, so that a later call holds out the same."""

from __future__ import annotations

import hashlib
from typing import Any

import keras
import numpy as np

from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import map_arrays


def is_held_out(inputs: Any, share: float) -> np.ndarray:
    """Return a bool for each example: whether it is held out.

    It depends only on the values of the example. So an example stays in its part when
    data are added or reordered, and equal examples are in the same part.

    Args:
        inputs: Arrays, also in nested structures.
        share: The expected share of examples that are held out.
    """
    count = count_rows(inputs)
    digests = [hashlib.blake2b(digest_size=8) for _ in range(count)]
    arrays = keras.tree.flatten(map_arrays(np.asarray, inputs))
    for array in arrays:
        for digest, row in zip(digests, array, strict=True):
            digest.update(_bytes(row))
    found = [int.from_bytes(each.digest(), "big") / 2**64 for each in digests]
    return np.array(found) < share


def _bytes(row: Any) -> bytes:
    row = np.asarray(row)
    if row.dtype.kind in "OUS":
        texts = [x if isinstance(x, bytes) else str(x).encode() for x in row.flat]
        return b"\0".join(texts) + b"\1"
    return np.ascontiguousarray(row).tobytes()
