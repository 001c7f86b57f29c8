"""Operations of a graph that TensorFlow alone lacks, such as those of a tokenizer."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping

import tensorflow as tf

from keras_transfer.export.request import Entry

PACKAGE = "tensorflow_text"


def foreign_notice(
    functions: Mapping[str, tf.types.experimental.ConcreteFunction],
    entries: Mapping[str, Entry],
) -> str | None:
    """Return what whoever loads these signatures must have, or None for TensorFlow.

    Args:
        functions: The functions of the signatures by name.
        entries: What each signature takes.
    """
    found = {name: foreign_operations(each) for name, each in functions.items()}
    names = sorted(set().union(*found.values()))
    if not names:
        return None
    strings = {
        f"{key!r} of {signature!r}"
        for signature, operations in found.items()
        for key, spec in entries[signature].specs.items()
        if operations and spec.dtype == tf.string
    }
    text = f"The graph has operations that TensorFlow alone lacks: {', '.join(names)}. "
    if all(_of_tensorflow_text(name) for name in names):
        text = (
            f"The graph has operations of {PACKAGE}: a Python client imports {PACKAGE} "
            "before it loads the SavedModel; TensorFlow Serving's own binaries have "
            "them. "
        )
    else:
        text += "Whoever loads the SavedModel must load their library first. "
    if strings:
        text += f"Strings go in as {', '.join(sorted(strings))}."
    return text.strip()


def foreign_operations(function: tf.types.experimental.ConcreteFunction) -> set[str]:
    """Return the types of operation that are not TensorFlow's own, at any depth."""
    graph = function.graph.as_graph_def()
    own = {each.signature.name for each in graph.library.function}
    nodes = [graph.node, *(each.node_def for each in graph.library.function)]
    used = {node.op for each in nodes for node in each} - own
    return {each for each in used if not hasattr(tf.raw_ops, each)}


def _of_tensorflow_text(operation: str) -> bool:
    if operation.startswith("TFText>"):
        return True
    modules = [
        module
        for name, module in sys.modules.items()
        if name.partition(".")[0] == PACKAGE
    ]
    # Each of its modules holds the library of operations that it has loaded.
    return any(
        isinstance(value, types.ModuleType) and hasattr(value, operation)
        for module in modules
        for value in vars(module).values()
    )
