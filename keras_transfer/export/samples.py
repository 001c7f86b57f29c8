"""Convert the samples of an export to the request of each signature."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.export.image_bytes import pixels_of
from keras_transfer.export.request import Entry
from keras_transfer.export.request import named


def requests(entries: Mapping[str, Entry], samples: object) -> dict[str, dict]:
    """Return a request, a dict of arrays by name, for each signature.

    Args:
        entries: The entries by signature.
        samples: The inputs of `serving_default`, or encoded images if there is an
            `image_bytes`.

    Raises:
        ValueError: If the samples do not fit the signature.
    """
    first = "image_bytes" if "image_bytes" in entries else "serving_default"
    found = {first: request(entries[first], samples, first)}
    prepared = run(entries[first], found[first])
    for name, entry in entries.items():
        if name in found:
            continue
        if name == "serving_default" and "preprocessed" in entries:
            found[name] = _images(entry, found[first]["image_bytes"])
        else:
            found[name] = request(entry, prepared, name)
    return found


def request(entry: Entry, samples: object, signature: str) -> dict[str, np.ndarray]:
    """Return samples as arrays with the names and dtypes of one entry.

    Raises:
        ValueError: If a name is missing or unknown, a shape does not fit, or the
            arrays differ in their number of rows.
    """
    names = list(entry.specs)
    strings = all(spec.dtype == tf.string for spec in entry.specs.values())
    if len(names) == 1 and not isinstance(samples, Mapping):
        samples = {names[0]: samples}  # a list of strings is one tensor
    elif strings and isinstance(samples, (list, tuple)) and len(samples) == len(names):
        samples = dict(zip(names, samples, strict=True))
    if isinstance(samples, Mapping):
        given = named(samples, "inputs")
    else:
        given = {f"inputs_{i}": each for i, each in enumerate(samples)}
    if set(given) != set(entry.specs):
        raise ValueError(
            f"The samples have the names {sorted(given)}, but {signature!r} takes "
            f"{sorted(entry.specs)}. Pass samples with these names."
        )
    found = {name: _array(given[name], s, name) for name, s in entry.specs.items()}
    rows = {name: len(array) for name, array in found.items()}
    if len(set(rows.values())) > 1 or not all(rows.values()):
        raise ValueError(
            f"The samples have {rows} rows. Pass the same number of rows, at least "
            "one, for each input."
        )
    return found


def run(entry: Entry, request: Mapping[str, np.ndarray]) -> object:
    """Return the inputs of the model for a request."""
    return entry.prepare(tensors_of(entry, request))


def tensors_of(entry: Entry, request: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
    """Return the arrays of a request as tensors."""
    return {k: tf.constant(v, entry.specs[k].dtype) for k, v in request.items()}


def _images(entry: Entry, files: np.ndarray) -> dict[str, np.ndarray]:
    images = [pixels_of(file).numpy().astype("float32") for file in files]
    if len({image.shape for image in images}) > 1:
        images = images[:1]  # all images of a batch have the same size
    (name,) = entry.specs
    return {name: np.stack(images)}


def _array(values: object, spec: tf.TensorSpec, name: str) -> np.ndarray:
    if spec.dtype == tf.string:
        array = _strings(values, name)
    else:
        try:
            array = np.asarray(values).astype(spec.dtype.as_numpy_dtype)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"The samples of {name!r} are not an array of {spec.dtype.name}: "
                f"{error}"
            ) from error
    # A batch can omit a last axis of size 1, which Keras adds.
    if array.ndim == len(spec.shape) - 1 and spec.shape[-1] == 1:
        array = array[..., None]
    if not spec.shape.is_compatible_with(array.shape):
        strings = "strings in " * (spec.dtype == tf.string)
        raise ValueError(
            f"The samples of {name!r} have the shape {array.shape}, but the model "
            f"takes {strings}{tuple(spec.shape)}."
        )
    return array


def _strings(values: object, name: str) -> np.ndarray:
    if isinstance(values, (str, bytes)):
        raise ValueError(
            f"The samples of {name!r} are one string. Pass a list of strings, one for "
            "each example."
        )
    if keras.ops.is_tensor(values):
        values = values.numpy()
    array = np.asarray(values, dtype=object)
    if not array.ndim or not all(isinstance(each, (str, bytes)) for each in array.flat):
        wanted = "image files as bytes" if name == "image_bytes" else "strings"
        raise ValueError(
            f"The samples of {name!r} must be a list of {wanted}, one for each "
            f"example. These have the shape {array.shape}: {str(values)[:80]}"
        )
    encoded = [x.encode() if isinstance(x, str) else x for x in array.flat]
    found = np.empty(array.shape, dtype=object)
    found.flat = encoded
    return found
