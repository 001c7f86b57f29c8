"""Data without labels, for language models with a preprocessor that makes labels."""

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
    """Return whether data has no labels, and the preprocessor of a Task makes them.

    The labels of a causal language model are the next tokens, and the labels of a
    masked language model are the masked tokens. The preprocessor is run on two examples
    or on a batch.
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
    """Return the data without labels, as `(x,)` or a dataset, and the example count.

    Raises:
        TypeError: If `data` contains values that are not arrays.
        ValueError: If `data` is empty, infinite or not batched.
    """
    if not isinstance(data, tf.data.Dataset):
        return (_x(data),), count_rows(_x(data))
    check_batched(data)
    check_finite(data)
    sizes = [len(keras.tree.flatten(x)[-1]) for x in data.as_numpy_iterator()]
    if not sizes:
        raise ValueError("`data` is empty. Pass at least one batch.")
    return data, int(np.sum(sizes))


def _x(data: Any) -> Any:
    return data[0] if isinstance(data, tuple) else data
