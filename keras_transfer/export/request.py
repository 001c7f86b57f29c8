"""Entry: the named tensors of a request, and how they become inputs of the model."""

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
    """The inputs of a signature, and how they become the inputs of the model.

    Attributes:
        specs: Specs of the tensors of a request, by name. Their first axis is the
            batch.
        prepare: Function from a dict of these tensors to the inputs of the model.
        resources: The lookup tables of the preprocessor and of the model.
        complete: Function from the tensors of a request and the outputs to the outputs
            that a client gets.
    """

    specs: dict[str, tf.TensorSpec]
    prepare: Callable[[dict[str, tf.Tensor]], object]
    resources: tuple[object, ...] = ()
    complete: Callable[[dict, dict], dict] = lambda request, outputs: outputs


def plain_entry(model: keras.Model, example: object = None) -> Entry:
    """Return the entry that takes the model's own inputs.

    Args:
        model: A model. If it is not functional, its inputs are inferred from `example`.
        example: Inputs of the model, or None.

    Raises:
        ValueError: If the inputs of the model are unknown.
    """
    structure = inputs_of(model)
    if structure is None and example is None:
        raise ValueError(
            f"{type(model).__name__} '{model.name}' is not functional, so the shapes "
            "and dtypes of its inputs are unknown. Pass a few examples as samples=."
        )
    if structure is None:
        structure = _arrays(example)
        if not all(each.ndim for each in keras.tree.flatten(structure)):
            raise ValueError(
                f"The samples of '{model.name}' contain single numbers. Pass one array "
                "for each input, with one row for each example."
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
    """Return the symbolic inputs of a functional model, or None for other models."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return None
    # `Sequential.input` belongs to the last call, which can be in another model.
    return inputs[0] if isinstance(model, keras.Sequential) else model.input


def fitted(prepared: object, plain: Entry, what: str) -> object:
    """Return the outputs of a preprocessor as the inputs of the model, in its dtypes.

    Raises:
        ValueError: If an input is missing.
    """
    # keras-hub returns (x, y, sample_weight) if the targets come from the inputs.
    if isinstance(prepared, tuple):
        prepared = prepared[0]
    found = named(prepared, "inputs")
    missing = sorted(set(plain.specs) - set(found))
    if missing:
        raise ValueError(
            f"{what} returns {sorted(found)}, but the model also needs {missing}. "
            "Pass the preprocessor that the model was trained with."
        )
    return plain.prepare(
        {k: tf.cast(found[k], spec.dtype) for k, spec in plain.specs.items()}
    )


def raw_entry(
    specs: dict[str, tf.TensorSpec], prepare: Callable, preprocessor: object = None
) -> Entry:
    """Return an entry whose `prepare` is a TensorFlow function.

    The file contains this function once, even if several signatures use it. As in
    `predict`, keras-hub runs its preprocessing in a graph. For arrays its code differs.
    """
    traced = tf.function(prepare, input_signature=[specs], autograph=False)
    return Entry(specs, traced, _resources(preprocessor))


def named(structure: object, single: str) -> dict[str, object]:
    """Return the tensors of a structure by names that do not depend on layer names.

    A dictionary keeps its keys, but "_" replaces each character that is not a letter
    or digit, as in the signatures of TensorFlow. A single tensor is named `single`,
    and the tensors of a list are named `single_0`, `single_1`, ....

    Raises:
        ValueError: If two keys become the same name.
    """
    if isinstance(structure, Mapping):
        found = {re.sub(r"\W", "_", str(key)): each for key, each in structure.items()}
        if len(found) < len(structure):
            raise ValueError(
                f"Some of the keys {sorted(structure)} become the same name, because "
                "the names in a signature contain only letters, digits and '_'. "
                "Rename these keys."
            )
    elif isinstance(structure, (list, tuple)) and len(structure) == 1:
        found = {single: structure[0]}
    elif isinstance(structure, (list, tuple)):
        found = {f"{single}_{i}": each for i, each in enumerate(structure)}
    else:
        found = {single: structure}
    return found


def like(structure: object, single: str, values: Mapping[str, object]) -> object:
    """Return `values`, which have the names of `named`, in the form of `structure`."""
    names = list(named(structure, single))
    if isinstance(structure, Mapping):
        return {key: values[name] for key, name in zip(structure, names, strict=True)}
    if isinstance(structure, (list, tuple)):
        return type(structure)(values[name] for name in names)
    return values[single]


def check_flat(tensors: Mapping[str, object]) -> None:
    """Check that the values that `named` returned are tensors, not structures.

    Raises:
        ValueError: If a value is a structure.
    """
    for name, each in tensors.items():
        if keras.tree.is_nested(each):
            raise ValueError(
                f"{name!r} is a {type(each).__name__} of tensors inside another "
                "structure. A signature has only one level. Wrap the model in a "
                "keras.Model whose inputs and outputs are dictionaries of tensors."
            )


def _resources(layer: object) -> tuple[object, ...]:
    """Return the lookup tables of a layer and of the layers inside it.

    TensorFlow saves these tables. The layer itself is not saved, because a SavedModel
    would then contain everything that belongs to the layer.
    """
    if not isinstance(layer, keras.Layer):
        return ()
    kind = tf.saved_model.experimental.TrackableResource
    found = {}
    for each in _keras.flat_layers(layer):
        # TensorFlow does not search the lists and dictionaries of a Keras layer, and
        # only on its own backend a layer.
        for value in [*vars(each).values(), *_collected(each)]:
            if hasattr(value, "_trackable_children") and not _is_layer(value):
                below = tf.train.TrackableView(value).descendants()
                found |= {id(x): x for x in below if isinstance(x, kind)}
    return tuple(found.values())


def _is_layer(value: object) -> bool:
    return isinstance(value, keras.Layer)


def _collected(layer: keras.Layer) -> Iterator[object]:
    """Yield the items of the lists, sets and dictionaries that a layer has."""
    for value in vars(layer).values():
        if isinstance(value, Mapping):
            yield from value.values()
        elif isinstance(value, list | tuple | set):
            yield from value


def _arrays(example: object) -> object:
    """Return an example as arrays. A list of strings becomes one array."""
    if isinstance(example, list) and example and isinstance(example[0], str | bytes):
        return np.asarray(example)
    return keras.tree.map_structure(np.asarray, example)


def _dtype(tensor: object) -> str:
    if isinstance(tensor, np.ndarray) and tensor.dtype.kind in "OUS":
        return "string"
    # NumPy's default dtypes differ from those of Keras.
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if isinstance(tensor, np.ndarray):
        dtype = {"float64": keras.config.floatx(), "int64": "int32"}.get(dtype, dtype)
    return dtype
