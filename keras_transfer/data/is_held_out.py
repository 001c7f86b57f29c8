"""is_held_out: examples to test on, chosen by their values."""

from __future__ import annotations

import hashlib
from typing import Any

import keras
import numpy as np

from keras_transfer._arguments import number
from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import map_arrays


def is_held_out(inputs: Any, share: float = 0.25) -> np.ndarray:
    """Return whether each example is held out, by a hash of its values.

    So an example stays in its part when data are added or reordered, and equal examples
    are in the same part, also with another dtype: no model is tested on what an earlier
    one has trained on. A larger share holds out the same examples and more. `kt.retune`
    holds out in this way, so train the first version of a model on the other examples,
    too.

    Args:
        inputs: Arrays or lists of the inputs, also in nested structures. Their values
            have to be exactly the same in each call.
        share: Number above 0 and below 1, the expected share of the examples that are
            held out. Defaults to 0.25.

    Returns:
        Bool array `(examples,)`.

    Raises:
        ValueError: If `share` is out of its range, or arrays differ in their length.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        x = np.random.rand(100, 4)
        test = kt.data.is_held_out(x)
        assert (kt.data.is_held_out(x[::-1]) == test[::-1]).all()
        x_train, x_test = x[~test], x[test]
        ```

    Reference:
        TensorFlow Datasets, "Splits and slicing"; the hash is BLAKE2, RFC 7693.
    """
    number("share", share, above=0, below=1)
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
    # Lists have 64 bits and arrays often 32. Adding 0 makes -0.0 equal to 0.0.
    return (row.astype("float32") + np.float32(0)).tobytes()
