"""Request: what a signature takes, as named tensors, and what `call` makes of it."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import _keras


@dataclasses.dataclass(frozen=True)
class Entry:
    """A way into the model.

    Attributes:
        specs: What a request holds, by name; the first axis of each is the batch.
        prepare: From tensors by name to the inputs of the model.
        resources: The lookup tables of the preprocessor and of the model.
    """

    specs: dict[str, tf.TensorSpec]
    prepare: Callable[[dict[str, tf.Tensor]], object]
    resources: tuple[object, ...] = ()


def plain_entry(model: keras.Model, example: object = None) -> Entry:
    """Return the entry by the model's own inputs.

    Args:
        model: A model. If it is not functional, its inputs are read off `example`.
        example: Inputs of the model, or None.

    Raises:
        ValueError: If nothing tells what the model takes.
    """
    structure = inputs_of(model)
    if structure is None and example is None:
        raise ValueError(
            f"{type(model).__name__} '{model.name}' is not functional, so nothing "
            "tells the shapes and dtypes of its inputs. Pass samples=, a few examples."
        )
    if structure is None:
        structure = _arrays(example)
        if not all(each.ndim for each in keras.tree.flatten(structure)):
            raise ValueError(
                f"The samples of '{model.name}' hold single numbers. Pass one array an "
                "input, with one row an example."
            )
    tensors = named(structure, "inputs")
    check_flat(tensors)
    specs = {
        name: tf.TensorSpec((None, *each.shape[1:]), _dtype(each), name=name)
        for name, each in tensors.items()
    }
    prepare = functools.partial(like, structure, "inputs")
    return Entry(specs, prepare, _resources(model))


def inputs_of(model: keras.Model) -> object:
    """Return the symbolic inputs of a functional model in their structure, or None."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return None
    # `input` of a Sequential is that of its last call, perhaps in another model.
    return inputs[0] if isinstance(model, keras.Sequential) else model.input


def fitted(prepared: object, plain: Entry, what: str) -> object:
    """Return what a preprocessor gave as the inputs of the model, in their dtypes.

    Raises:
        ValueError: If an input is not there.
    """
    # keras-hub gives (x, y, sample_weight) where a Task learns from its own inputs.
    if isinstance(prepared, tuple):
        prepared = prepared[0]
    found = named(prepared, "inputs")
    missing = sorted(set(plain.specs) - set(found))
    if missing:
        raise ValueError(
            f"{what} gives {sorted(found)}, but the model needs {missing} as well. "
            "Pass the preprocessor that the model was trained with."
        )
    return plain.prepare(
        {k: tf.cast(found[k], spec.dtype) for k, spec in plain.specs.items()}
    )


def raw_entry(
    specs: dict[str, tf.TensorSpec], prepare: Callable, preprocessor: object = None
) -> Entry:
    """Return an entry whose `prepare` is a TensorFlow function.

    It is in the file once, however many signatures use it. And keras-hub computes in
    a graph, as `predict` does, what it computes otherwise for arrays.
    """
    traced = tf.function(prepare, input_signature=[specs], autograph=False)
    return Entry(specs, traced, _resources(preprocessor))


def named(structure: object, single: str) -> dict[str, object]:
    """Return the tensors of a structure by names that no layer counter changes.

    A dictionary keeps its keys; where a key is no identifier, "_" stands for each
    odd character, for TensorFlow writes them so in a signature. A single tensor is
    named `single`, those of a list `single_0`, `single_1`.

    Raises:
        ValueError: If two keys become one name.
    """
    if isinstance(structure, Mapping):
        found = {re.sub(r"\W", "_", str(key)): each for key, each in structure.items()}
        if len(found) < len(structure):
            raise ValueError(
                f"The keys {sorted(structure)} give fewer names in a signature, which "
                "has letters, digits and '_' only. Rename some."
            )
    elif isinstance(structure, (list, tuple)) and len(structure) == 1:
        found = {single: structure[0]}
    elif isinstance(structure, (list, tuple)):
        found = {f"{single}_{i}": each for i, each in enumerate(structure)}
    else:
        found = {single: structure}
    return found


def like(structure: object, single: str, values: Mapping[str, object]) -> object:
    """Return `values`, by the names that `named` gives, in the form of `structure`."""
    names = list(named(structure, single))
    if isinstance(structure, Mapping):
        return {key: values[name] for key, name in zip(structure, names, strict=True)}
    if isinstance(structure, (list, tuple)):
        return type(structure)(values[name] for name in names)
    return values[single]


def check_flat(tensors: Mapping[str, object]) -> None:
    """Check that what `named` gave are tensors, not structures of them.

    Raises:
        ValueError: If one is a structure.
    """
    for name, each in tensors.items():
        if keras.tree.is_nested(each):
            raise ValueError(
                f"{name!r} is a {type(each).__name__} of tensors in a structure of "
                "them. A signature knows one level: wrap the model in a keras.Model "
                "whose inputs and outputs are a dictionary of tensors."
            )


def _resources(layer: object) -> tuple[object, ...]:
    """Return the lookup tables and models that a layer keeps, also in layers below it.

    TensorFlow saves them. Not the layer itself: a SavedModel would list all that
    belongs to it.
    """
    if not isinstance(layer, keras.Layer):
        return ()
    kind = tf.saved_model.experimental.TrackableResource
    below = tf.train.TrackableView(layer).descendants()
    # TensorFlow does not look into the lists and dictionaries of a Keras layer.
    below += [x for each in _keras.flat_layers(layer) for x in _collected(each)]
    return tuple(each for each in below if isinstance(each, kind))


def _collected(layer: keras.Layer) -> Iterator[object]:
    """Return what is in the lists and dictionaries that are attributes of a layer."""
    for value in vars(layer).values():
        if isinstance(value, Mapping):
            yield from value.values()
        elif isinstance(value, list | tuple | set):
            yield from value


def _arrays(example: object) -> object:
    """Return an example with arrays; a list of strings is one."""
    if isinstance(example, list) and example and isinstance(example[0], str | bytes):
        return np.asarray(example)
    return keras.tree.map_structure(np.asarray, example)


def _dtype(tensor: object) -> str:
    if isinstance(tensor, np.ndarray) and tensor.dtype.kind in "OUS":
        return "string"
    # Examples come in NumPy's default; Keras computes in its own.
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if isinstance(tensor, np.ndarray):
        dtype = {"float64": keras.config.floatx(), "int64": "int32"}.get(dtype, dtype)
    return dtype
