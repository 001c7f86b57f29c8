"""The functions of a SavedModel, each traced once, and each variable written once."""

from __future__ import annotations

import os
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_transfer.export.folded import Folded
from keras_transfer.export.request import check_flat
from keras_transfer.export.request import Entry
from keras_transfer.export.request import named


def forward(model: keras.Model, plain: Entry, single: str, folded: Folded) -> Callable:
    """Return a TensorFlow function from the model's inputs to its outputs by name.

    All signatures call this one function, so that the graph of the model is in the
    file once. Half-precision outputs become float32, which every client can read.
    """

    def call(tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        with folded.applied():
            outputs = named(model(plain.prepare(tensors), training=False), single)
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
    """Return the function of a signature: prepare, compute, finish."""

    specs = entry.specs

    def serve(tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        # Some kernels end the server's process where the rank is another, such as
        # oneDNN's convolutions ("Check failed: index >= 0" in tensor_format.h).
        checked = {k: tf.ensure_shape(tensors[k], x.shape) for k, x in specs.items()}
        return finish(compute(entry.prepare(checked)))

    traced = tf.function(serve, input_signature=[entry.specs], autograph=False)
    return traced.get_concrete_function()


def write(
    functions: Mapping[str, tf.types.experimental.ConcreteFunction],
    resources: Sequence[object],
    folder: str | os.PathLike,
) -> None:
    """Write a SavedModel of these signatures, with the variables that they read.

    keras.export.ExportArchive stores each variable twice (keras-team/keras#23553).
    Here only one list holds them, and what no signature reads is left out: the
    optimizer, the head of another domain, seeds.

    Raises:
        ValueError: If a table is not among the resources.
    """
    root = tf.Module()
    used = {id(each): each for f in functions.values() for each in f.variables}
    root.weights = sorted(used.values(), key=lambda each: each.name)
    root.resources = list({id(each): each for each in resources}.values())
    try:
        tf.saved_model.save(root, os.fspath(folder), signatures=dict(functions))
    except AssertionError as error:  # how TensorFlow says it
        raise ValueError(
            "The preprocessor uses a table that the SavedModel would not hold. Pass "
            "the Keras layer that owns the table, not a function around it."
        ) from error
