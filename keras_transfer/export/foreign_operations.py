"""Operations of a graph that are not part of TensorFlow, such as a tokenizer's."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable
from collections.abc import Mapping

import tensorflow as tf

from keras_transfer.export.request import Entry

PACKAGE = "tensorflow_text"
# The network of a model of JAX. TensorFlow has it, but not as a raw op of Python.
COMPILED = "XlaCallModule"


def foreign_notice(
    functions: Mapping[str, tf.types.experimental.ConcreteFunction],
    entries: Mapping[str, Entry],
) -> str | None:
    """Return what a program needs to load these signatures in addition to TensorFlow.

    Args:
        functions: The functions of the signatures by name.
        entries: The inputs of each signature.

    Returns:
        A text for the user, or None if TensorFlow alone is enough.
    """
    found = {name: foreign_operations(each) for name, each in functions.items()}
    names = sorted(set().union(*found.values()))
    if not names:
        return None
    strings = [
        (key, signature)
        for signature, operations in found.items()
        for key, spec in entries[signature].specs.items()
        if operations and spec.dtype == tf.string
    ]
    if all(_of_tensorflow_text(name) for name in names):
        text = (
            f"The graph contains operations of {PACKAGE}: {', '.join(names)}. A Python "
            f"client must run `import {PACKAGE}` before it loads the SavedModel. "
            "TensorFlow Serving is built with TensorFlow Text, but an older release "
            "can lack some of these operations."
        )
    else:
        text = (
            f"The graph contains operations that TensorFlow lacks: {', '.join(names)}. "
            "Load the library of these operations before the SavedModel."
        )
    if strings:
        inputs, signatures = (_quoted(each) for each in zip(*strings, strict=True))
        text += f" Send strings as {inputs} (signatures {signatures})."
    return text


def foreign_operations(function: tf.types.experimental.ConcreteFunction) -> set[str]:
    """Return the operations, at any depth, that are not part of TensorFlow."""
    graph = function.graph.as_graph_def()
    own = {each.signature.name for each in graph.library.function}
    nodes = [graph.node, *(each.node_def for each in graph.library.function)]
    used = {node.op for each in nodes for node in each} - own
    return {x for x in used if not hasattr(tf.raw_ops, x) and x != COMPILED}


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(set(names))))


def _of_tensorflow_text(operation: str) -> bool:
    if operation.startswith("TFText>"):
        return True
    modules = [
        module
        for name, module in sys.modules.items()
        if name.partition(".")[0] == PACKAGE
    ]
    # A module of tensorflow_text keeps its operations in a module that TensorFlow
    # generates when it loads the library.
    return any(
        isinstance(value, types.ModuleType) and hasattr(value, operation)
        for module in modules
        for value in vars(module).values()
    )
