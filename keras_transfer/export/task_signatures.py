"""The signatures of the tasks of a MultiTask: each computes one head."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping

import keras
import tensorflow as tf

from keras_transfer.adapters.switching import attached
from keras_transfer.export.known_names import INPUT
from keras_transfer.export.request import Entry
from keras_transfer.export.request import named
from keras_transfer.export.served_adapters import BASE
from keras_transfer.models.multi_task import MultiTask


def tasks_of(
    model: keras.Model, taken: Collection[str], adapters: Collection[str] | None
) -> list[str]:
    """Return the names of the tasks of a model, which are none for other models.

    Args:
        model: A model.
        taken: Names of other signatures.
        adapters: Names of the exported adapters, or None.

    Raises:
        ValueError: If a task has the name of another signature, or has an adapter that
            would be merged into the heads of other tasks, or lost.
    """
    names = list(model.heads) if isinstance(model, MultiTask) else []
    twice = sorted(set(names) & set(taken))
    if twice:
        raise ValueError(
            f"The tasks {twice} have the names of signatures of the file. Rename these "
            "heads of the model."
        )
    left_out = sorted(set(names) & set(attached(model)) - set(adapters or ()))
    if left_out:
        raise ValueError(
            f"The tasks {left_out} have adapters of their own, which would be lost or "
            "merged into the heads of other tasks. Pass adapters= with the names of "
            f"all adapters, {list(attached(model))}."
        )
    return names


def task_entry(entry: Entry, task: str, adapters: Collection[str] | None) -> Entry:
    """Return the entry of the signature of a task, which needs no adapter name.

    Args:
        entry: The entry without adapters.
        task: Name of the task.
        adapters: Names of the exported adapters, or None if they are not an input.
    """
    if adapters is None:
        return entry
    adapter = task if task in adapters else BASE

    def prepare(tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        found = named(entry.prepare(tensors), "inputs")
        rows = tf.shape(next(iter(found.values())))[:1]
        return {**found, INPUT: tf.fill(rows, adapter)}

    return dataclasses.replace(entry, prepare=prepare)


def finish_task(task: str, finish: Callable) -> Callable:
    """Return a function from all outputs to those of a task, with its labels."""
    keys = {task, f"{task}_label", f"{task}_label_id"}

    def found(outputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {key: each for key, each in finish(outputs).items() if key in keys}

    return found


def head_of(model: keras.Model, task: str) -> Callable:
    """Return a function that computes one head of a model, for the comparison."""

    def network(inputs: object, training: bool = False) -> dict[str, object]:
        return {task: model(inputs, training=training)[task]}

    return network
