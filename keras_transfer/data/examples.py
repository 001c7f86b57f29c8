"""Check and read the data of a user: arrays, a tf.data.Dataset, or a PyDataset."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer._arguments import whole_number

ARRAYS = "arrays"
DATASET = "a tf.data.Dataset"
PY_DATASET = "a keras.utils.PyDataset"
BATCH_SIZE = 32  # the default of Keras
NUMBERS = (bool, int, float, np.bool_, np.number)


def kind_of(
    data: Any, name: str = "data", *, x_alone: bool = False, py_dataset: bool = True
) -> str:
    """Return the kind of `data`, which is ARRAYS, DATASET or PY_DATASET.

    Args:
        data: The data of a user.
        name: Name of the argument, for messages.
        x_alone: Whether arrays without labels are accepted, in any structure.
        py_dataset: Whether a PyDataset is accepted.

    Raises:
        TypeError: If `data` is an iterator or of another kind.
    """
    if isinstance(data, tf.data.Dataset):
        return DATASET
    if isinstance(data, keras.utils.PyDataset) and py_dataset:
        return PY_DATASET
    iterator = hasattr(data, "__next__")
    other = data is None or callable(data) or isinstance(data, keras.utils.PyDataset)
    if isinstance(data, tuple) or (x_alone and not iterator and not other):
        return ARRAYS
    arrays = "a tuple of arrays (x, y) or (x, y, sample_weight)"
    if x_alone:
        arrays = "arrays or a structure of arrays"
    last = f"{DATASET}, or {PY_DATASET}" if py_dataset else f"or {DATASET}"
    once = ", which allows only one pass, and examples read here would be missing later"
    raise TypeError(
        f"`{name}` is a {type(data).__name__}{once if iterator else ''}. Pass "
        f"{arrays}, {last}."
    )


def count_batches(data: Any) -> float | None:
    """Return the number of batches of a dataset, which can be infinity.

    Return None if the number is unknown.
    """
    if isinstance(data, keras.utils.PyDataset):
        return math.inf if data.num_batches is None else data.num_batches
    count = int(data.cardinality())
    if count == tf.data.INFINITE_CARDINALITY:
        return math.inf
    return None if count == tf.data.UNKNOWN_CARDINALITY else count


def check_not_empty(data: Any, name: str = "data") -> None:
    """Check that a dataset is not empty, if its length is known.

    Raises:
        ValueError: If the dataset has no batches.
    """
    if count_batches(data) == 0:
        raise ValueError(f"`{name}` is empty. Pass at least one batch.")


def check_finite(data: Any, name: str = "data") -> None:
    """Check that a dataset is finite and not empty, if its length is known.

    Raises:
        ValueError: If the dataset is empty or infinite.
    """
    check_not_empty(data, name)
    if count_batches(data) == math.inf:
        fix = f"Leave out its repeat(), or call {name}.take(number)"
        if isinstance(data, keras.utils.PyDataset):
            fix = "Its num_batches is None. Return a number instead"
        raise ValueError(
            f"`{name}` has no end, so it cannot be read completely. {fix}."
        )


def check_batched(
    data: tf.data.Dataset, name: str = "data", model: keras.Model | None = None
) -> None:
    """Check that a dataset is batched, from its shapes and the inputs of a model.

    Raises:
        ValueError: If the elements are single examples.
    """
    spec = data.element_spec
    single = any(_rank(each) == 0 for each in keras.tree.flatten(spec))
    inputs = getattr(model, "inputs", None) or []
    x = keras.tree.flatten(spec[0] if isinstance(spec, tuple) else spec)
    # With a preprocessor, the elements are not the inputs of the model. A batch can
    # leave out a last axis of 1, because Keras adds it.
    if getattr(model, "preprocessor", None) is None and len(x) == len(inputs):
        single = single or any(
            _rank(each) == len(wanted.shape) - 1 and wanted.shape[-1] != 1
            for each, wanted in zip(x, inputs, strict=True)
        )
    if single:
        raise ValueError(
            f"`{name}` is not batched. Its elements are {spec}. Call {name}.batch(32)."
        )


def check_dense(spec: Any, name: str = "data") -> None:
    """Check that the elements of a dataset are dense.

    Raises:
        TypeError: If `spec` contains ragged or sparse tensors.
    """
    for each in keras.tree.flatten(spec):
        if not isinstance(each, tf.TensorSpec):
            raise TypeError(
                f"`{name}` has a {type(each).__name__}, but all elements must be dense "
                "tensors. Convert them, for example by `.to_tensor()`."
            )


def batches_of(data: Any, name: str = "data") -> Iterator[Any]:
    """Return the batches of one pass over a dataset.

    Raises:
        ValueError: If the dataset is empty or infinite.
    """
    check_finite(data, name)
    if isinstance(data, keras.utils.PyDataset):
        return map(data.__getitem__, range(data.num_batches))
    return iter(data)


def count_rows(arrays: Any, name: str = "data") -> int:
    """Return the number of examples in arrays.

    Raises:
        TypeError: If `arrays` contains something else.
        ValueError: If the arrays have different lengths, or no examples.
    """
    sizes = set()
    map_arrays(lambda array: sizes.add(len(array)), arrays)
    if len(sizes) != 1:
        rows = any(map(_is_list_of_arrays, _values(arrays)))
        raise ValueError(
            f"The arrays of `{name}` have {sorted(sizes)} examples. Pass arrays of the "
            "same length."
            + " A list of arrays means several inputs or outputs. Convert a list of "
            "examples to one array by np.stack." * rows
        )
    (size,) = sizes
    if size == 0:
        raise ValueError(f"`{name}` is empty. Pass at least one example.")
    return size


def rows_of(arrays: Any, part: slice) -> Any:
    """Return rows of arrays. Strings become a tensor, which layers need."""
    return map_arrays(lambda array: _for_layers(array[part]), arrays)


def map_arrays(function: Callable[[np.ndarray], Any], data: Any) -> Any:
    """Apply `function` to the arrays of `data`, also in nested structures.

    A list of plain values counts as one array, and so does a column or a table of
    pandas.

    Raises:
        TypeError: If `data` contains something else, or rows of different lengths.
        ValueError: If an array of objects has missing values.
    """
    if data is None:
        return None
    if isinstance(data, dict):
        return {key: map_arrays(function, value) for key, value in data.items()}
    nested = isinstance(data, list) and data and isinstance(data[0], dict | tuple)
    if isinstance(data, tuple) or nested or _is_list_of_arrays(data):
        return type(data)(map_arrays(function, value) for value in data)
    return function(_as_array(data))


def fit_arguments(
    model: keras.Model, data: Any, steps: int, batch_size: int | None
) -> dict:
    """Check `data`, and return arguments of `fit` for at least `steps` batches.

    Raises:
        TypeError: If `data` is an iterator or of an unknown kind.
        ValueError: If `data` is empty or not batched, or `batch_size` cannot be used.
    """
    kind = kind_of(data)
    if kind == ARRAYS:
        return _shuffled(data, steps, BATCH_SIZE if batch_size is None else batch_size)
    if kind == DATASET:
        check_batched(data, model=model)
    if batch_size is not None:
        raise ValueError(
            f"batch_size={batch_size} has no effect on a {type(data).__name__}, which "
            "is already batched. Leave out batch_size."
        )
    check_not_empty(data)
    if kind == PY_DATASET:
        return {"x": data, "epochs": steps}
    # Without steps_per_epoch, a dataset of unknown length ends each epoch with a
    # warning.
    return {"x": data.repeat(), "steps_per_epoch": steps}


def _shuffled(data: tuple, steps: int, batch_size: int) -> dict:
    """Return arrays for exactly `steps` batches, with a new order in each pass.

    Keras does not shuffle the arrays of a keras-hub Task. Without a shuffle, examples
    that are sorted by class would give the loss of one class at a time.
    """
    whole_number("batch_size", batch_size)
    if not 1 <= len(data) <= 3:
        raise ValueError(
            f"`data` is a tuple of {len(data)}. Pass (x, y) or (x, y, sample_weight)."
        )
    size = count_rows(data)
    batch_size = min(batch_size, size)
    random = np.random.default_rng(0)
    passes = math.ceil(steps * batch_size / size)
    order = np.concatenate([random.permutation(size) for _ in range(passes)])
    order = order[: steps * batch_size]
    chosen = map_arrays(lambda array: _for_layers(array[order]), data)
    names = ("x", "y", "sample_weight")
    return dict(zip(names, chosen)) | {"batch_size": batch_size}


def _for_layers(array: np.ndarray) -> Any:
    """Return strings as a tensor of TensorFlow, which the layers for text take."""
    return tf.convert_to_tensor(array) if array.dtype.kind in "OUS" else array


def _rank(spec: Any) -> int | None:
    return spec.shape.rank if hasattr(spec, "shape") else None  # the spec of None


def _values(arrays: Any) -> Any:
    return arrays if isinstance(arrays, tuple) else [arrays]


def _is_list_of_arrays(data: Any) -> bool:
    if not isinstance(data, list):
        return False
    # One of several outputs can have None as its labels.
    first = next((each for each in data if each is not None), None)
    return len(getattr(first, "shape", ())) > 0  # NumPy scalars have the shape ()


def _as_array(data: Any) -> np.ndarray:
    """Return an array of numbers or strings, with one example in each row."""
    kind = type(data).__name__
    fix = (
        "Pass arrays with one example in each row, or a tf.data.Dataset for ragged "
        "examples."
    )
    try:
        array = np.asarray(data)
        if isinstance(data, list) and array.dtype.kind in "SU":
            array = np.asarray(data, object)  # otherwise NaN becomes a string
    except ValueError as error:
        raise TypeError(
            f"`data` contains a {kind} with rows of different lengths. {fix}"
        ) from error
    if array.ndim == 0:
        raise TypeError(
            f"`data` contains a {kind} that is not an array of examples. {fix}"
        )
    if array.dtype != object:
        return array
    if all(isinstance(each, str | bytes) for each in array.flat):
        return np.asarray(data)
    missing = sum(map(_is_missing, array.flat))
    if all(isinstance(each, NUMBERS) for each in array.flat):
        return np.array(array.tolist())  # pandas stores mixed numbers as objects
    if missing:
        raise ValueError(
            f"{missing} of {array.size} values in a {kind} of `data` are missing (None "
            "or NaN). Remove these examples, or fill in the values."
        )
    kinds = ", ".join(sorted({type(each).__name__ for each in array.flat}))
    raise TypeError(
        f"`data` contains a {kind} of {kinds} that is not an array of examples. {fix} "
        "For a table with columns of several dtypes, pass dict(table)."
    )


def _is_missing(value: Any) -> bool:
    missing = value is None or type(value).__name__ in ("NAType", "NaTType")
    return missing or isinstance(value, float) and math.isnan(value)
