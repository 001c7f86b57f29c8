"""Data without labels, for a Task whose preprocessor makes them: language models."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.data.examples import check_batched
from keras_transfer.data.examples import check_finite
from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import rows_of


def makes_labels(model: keras.Model, data: Any) -> bool:
    """Return whether data have no labels, and the preprocessor of a Task makes some.

    A causal language model learns the next token of each text, a masked one those that
    its preprocessor has hidden. The preprocessor is run on two examples.
    """
    preprocessor = getattr(model, "preprocessor", None)
    other = callable(data) or hasattr(data, "__next__")
    if preprocessor is None or other or data is None or isinstance(data, str):
        return False
    if isinstance(data, keras.utils.PyDataset):
        return False
    if isinstance(data, tf.data.Dataset):
        spec = data.element_spec
        if isinstance(spec, tuple) and len(spec) > 1:
            return False
        rows = list(data.take(1))
        if not rows:
            return False
        (rows,) = rows
        x = rows[0] if isinstance(rows, tuple) else rows
    else:
        if isinstance(data, tuple) and any(each is not None for each in data[1:]):
            return False
        x = rows_of(_x(data), slice(0, 2))
    return keras.utils.unpack_x_y_sample_weight(preprocessor(x))[1] is not None


def without_labels(data: Any) -> tuple[Any, int]:
    """Return data as x alone, `(x,)` or a dataset, and their number of examples.

    Raises:
        TypeError: If arrays are among them that are none.
        ValueError: If they are empty, endless or not batched.
    """
    if not isinstance(data, tf.data.Dataset):
        return (_x(data),), count_rows(_x(data))
    check_batched(data)
    check_finite(data)
    sizes = [len(keras.tree.flatten(x)[-1]) for x in data.as_numpy_iterator()]
    if not sizes:
        raise ValueError("`data` is empty: it has no batch.")
    return data, int(np.sum(sizes))


def _x(data: Any) -> Any:
    return data[0] if isinstance(data, tuple) else data
