"""The graph of a SavedModel: merged adapters, each function and variable once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import gate_value
from keras_transfer.adapters.adapter_part import parts_of
from keras_transfer.adapters.in_place.adapted_layer import plain_of
from keras_transfer.adapters.in_place.forward import Hooked
from keras_transfer.adapters.in_place.layer_state import set_class
from keras_transfer.adapters.own_layer import weights_below
from keras_transfer.export.request import check_flat
from keras_transfer.export.request import Entry
from keras_transfer.export.request import named

INSTEAD = (
    "Save the model with model.save(path), and export it in a process with "
    "KERAS_BACKEND=tensorflow, where keras.saving.load_model(path) loads it."
)


APART = "adapters"  # beginning of the names of the adapters in a checkpoint


class Folded:
    """Lets a graph be traced with plain layers instead of layers with adapters.

    The sums `W + scaling A B` are copies. The model's own weights, its optimizer and
    its compiled functions do not change, so the model can be exported during `fit`.
    Only the weights that an adapter changes are copied. Adapters that cannot be merged
    (a bottleneck, or an adapter on a quantized layer) stay in the graph.

    Args:
        model: A model, with or without adapters.
    """

    def __init__(self, model: keras.Model) -> None:
        self.plain: list[keras.Layer] = []
        self.values: list[tuple[keras.Variable, tf.Variable]] = []
        for layer in _keras.flat_layers(model):
            if isinstance(layer, Hooked):
                folded = _fold(layer)
                if folded is not None:
                    self.plain.append(layer)
                    self.values += folded
        self._copies = {id(variable): copy for variable, copy in self.values}

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Let the layers compute without adapters, with the sums as their weights."""
        kinds = [type(layer) for layer in self.plain]
        # On JAX the values are inputs of the network instead.
        values = [] if _keras.on_jax() else self.values
        states = [(variable, copy.value()) for variable, copy in values]
        with contextlib.ExitStack() as stack:
            for layer, kind in zip(self.plain, kinds, strict=True):
                stack.callback(set_class, layer, kind)
                set_class(layer, plain_of(layer))
            if states:
                stack.enter_context(keras.StatelessScope(state_mapping=states))
            yield

    def compute(self, network: Callable, inputs: object) -> object:
        """Return the outputs of a network without adapters."""
        with self.applied():
            if _keras.on_jax():
                return _keras.call_in_tensorflow(network, inputs, self._copy_of)
            return network(inputs, training=False)

    def _copy_of(self, variable: keras.Variable) -> tf.Variable:
        if id(variable) not in self._copies:
            with tf.init_scope():
                copy = tf.Variable(_keras.value(variable), name=variable.path)
            self._copies[id(variable)] = copy
        return self._copies[id(variable)]


def forward(model: keras.Model, plain: Entry, single: str, folded: Folded) -> Callable:
    """Return a TensorFlow function from the model's inputs to its outputs by name.

    All signatures call this function, so the file contains the graph of the model
    once. Half-precision outputs become float32, which every client can read.
    """

    def call(tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        outputs = named(folded.compute(model, plain.prepare(tensors)), single)
        check_flat(outputs)
        return {
            name: tf.cast(each, tf.float32)
            if each.dtype in (tf.float16, tf.bfloat16)
            else tf.identity(each)
            for name, each in outputs.items()
        }

    traced = tf.function(call, input_signature=[plain.specs], autograph=False)
    traced.get_concrete_function()

    def run(inputs: object) -> dict[str, tf.Tensor]:
        return traced(named(inputs, "inputs"))

    return run


def signature(
    entry: Entry, compute: Callable, finish: Callable = dict
) -> tf.types.experimental.ConcreteFunction:
    """Return the function of a signature: prepare, compute, finish, complete."""
    specs = entry.specs

    def serve(tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        # With a wrong rank some kernels abort the server, such as the convolutions of
        # oneDNN ("Check failed: index >= 0" in tensor_format.h).
        checked = {k: tf.ensure_shape(tensors[k], x.shape) for k, x in specs.items()}
        return entry.complete(checked, finish(compute(entry.prepare(checked))))

    traced = tf.function(serve, input_signature=[entry.specs], autograph=False)
    return traced.get_concrete_function()


def write(
    functions: Mapping[str, tf.types.experimental.ConcreteFunction],
    resources: Sequence[object],
    folder: str | os.PathLike,
    adapters: Mapping[str, tf.Variable] | None = None,
) -> None:
    """Write a SavedModel with these signatures and the variables that they read.

    `keras.export.ExportArchive` stores each variable twice (keras-team/keras#23553).
    This function stores each variable once. It leaves out variables that no signature
    reads: the optimizer, the head of another domain, seeds, and the tables of a
    tokenizer that is not exported.

    Args:
        functions: The functions by the names of their signatures.
        resources: The tables that they can use.
        folder: Path of the new folder.
        adapters: Variables by name that are written to a data file of their own, so
            `add_adapter` can replace this file alone. Defaults to None.

    Raises:
        ValueError: If a signature uses a table that is not among the resources.
    """
    root = tf.Module()
    used = {id(each): each for f in functions.values() for each in f.variables}
    options = None
    if adapters:
        found = {k: used.pop(id(v)) for k, v in adapters.items() if id(v) in used}
        setattr(root, APART, found)
        options = tf.saved_model.SaveOptions(experimental_sharding_callback=_Apart())
    root.weights = sorted(used.values(), key=lambda each: each.name)
    read = {id(each) for f in functions.values() for each in f.captured_inputs}
    tables = {id(each): each for each in resources if id(each.resource_handle) in read}
    root.resources = list(tables.values())
    try:
        tf.saved_model.save(root, os.fspath(folder), dict(functions), options)
    except AssertionError as error:  # TensorFlow's error for a missing table
        raise ValueError(
            "The preprocessor or the model uses a lookup table that cannot be saved, "
            "because no layer owns it. A function uses the table, such as the "
            "function of a Lambda layer. Pass the Keras layer that owns the table, or "
            "make the table an attribute of a layer of the model."
        ) from error


class _Apart(tf.train.experimental.ShardingCallback):
    """Puts the adapters into the last data file of a checkpoint, and all else before.

    An export without other variables has the adapters in its second file too, because
    the first one contains the graph of objects.
    """

    description = "the adapters in a data file of their own"

    def __call__(self, shardable_tensors: Sequence) -> list[dict]:
        base, apart = {}, {}
        for each in shardable_tensors:
            shard = apart if each.checkpoint_key.startswith(f"{APART}/") else base
            slices = shard.setdefault(each.checkpoint_key, {})
            slices[each.slice_spec] = each.tensor
        return [shard for shard in (base, apart) if shard]


def _fold(layer: keras.Layer) -> list[tuple[keras.Variable, tf.Variable]] | None:
    """Return copies of the weights that change, or None if merging is impossible."""
    active = [part for part in parts_of(layer) if gate_value(part)]
    if active and layer.quantization_mode is not None:
        return None
    own = weights_below(layer)
    before: dict[str, np.ndarray] = {}
    if active:
        before = {k: _keras.value(v).astype("float32") for k, v in own.items()}
    after = dict(before)
    for part in active:
        try:
            part.fold(layer, after)
        except ValueError:  # this technique has no such sum
            return None
    return [
        (own[k], tf.Variable(after[k].astype(before[k].dtype), name=own[k].path))
        for k in before
        if after[k] is not before[k]
    ]
