"""task_mixture: batches of several tasks, in which each row belongs to one task."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer._arguments import positive
from keras_transfer._arguments import whole_number
from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import map_arrays
from keras_transfer.data.task_rates import task_counts
from keras_transfer.data.task_rates import task_rates
from keras_transfer.data.task_rates import TaskOrder

LABELS = "_labels_of_tasks"  # attribute of the dataset


@dataclasses.dataclass(frozen=True)
class Task:
    """The arrays of one task.

    Args:
        x: A structure of arrays.
        y: An array of labels.
        weight: An array of sample weights.
    """

    x: Any
    y: np.ndarray
    weight: np.ndarray


def task_mixture(
    tasks: Mapping[str, tuple],
    *,
    temperature: float = 1.0,
    limit: int | None = None,
    batch_size: int = 32,
    steps: int | None = None,
    seed: int = 0,
) -> tf.data.Dataset:
    """Return batches of several tasks for `kt.models.MultiTask`.

    Each row is an example of one task. The labels are a dict with an entry for each
    task, and the sample weights are a dict too: the weight of a row is 1 for its own
    task and 0 for the others, where its label means nothing. So labels of different
    kinds, such as classes and numbers, share a batch, and losses and metrics of a task
    count its own rows only.

    With `n` examples of a task, its share of the rows is in proportion to
    `min(n, limit)^(1 / temperature)`. At a temperature of 1, tasks have the shares of
    their sizes. A higher one makes the shares more even, so examples of small tasks
    return more often.

    All batches have `batch_size` rows. Each epoch has the same number of rows of each
    task, by largest remainders, in a new order. A batch can lack a task. A task goes
    through all its examples before one returns, also across epochs. The order depends
    on `seed` and the number of the pass only.

    Args:
        tasks: Dict from the names of the tasks to tuples of arrays, `(x, y)` or
            `(x, y, sample_weight)`. `x` can be a structure, such as the tokens of a
            text, with the same shapes and dtypes for all tasks.
        temperature: Number above 0. Defaults to 1.0.
        limit: Int, the size above which a task counts no more, or None for no limit.
            Defaults to None.
        batch_size: Int of at least 1. Defaults to 32.
        steps: Int, the number of batches of an epoch. Defaults to None: as many as hold
            the examples of all tasks together once.
        seed: Int of 0 or more. Defaults to 0.

    Returns:
        A `tf.data.Dataset` of `(x, y, sample_weight)`. Pass `shuffle=False` to `fit`.

    Raises:
        TypeError: If the tasks are not a dict, or one is not a tuple of arrays.
        ValueError: If there is no task, one has no examples or no labels, its arrays
            differ in length, two tasks differ in the structure, shape or dtype of `x`,
            labels or weights are not numbers, or an epoch has no row of a task.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        large = np.zeros((36, 2)), np.zeros(36, int)  # classes
        small = np.ones((4, 2)), np.linspace(0.0, 1.0, 4)  # numbers
        data = kt.data.task_mixture(
            {"large": large, "small": small}, temperature=2.0, batch_size=8
        )
        weights = [weight["small"].numpy().sum() for x, y, weight in data]
        assert sum(weights) == 10  # of 40 rows: 2 / (2 + 6) instead of 4 / (4 + 36)
        ```

    Reference:
        Raffel et al., 2020, "Exploring the Limits of Transfer Learning with a Unified
        Text-to-Text Transformer", arXiv:1910.10683, section 3.5.2.
    """
    temperature = positive("temperature", temperature)
    limit = limit if limit is None else whole_number("limit", limit)
    batch_size = whole_number("batch_size", batch_size)
    seed = whole_number("seed", seed, 0)
    found = _read(tasks)
    sizes = [len(task.y) for task in found.values()]
    if steps is None:
        steps = -(-sum(sizes) // batch_size)
    total = whole_number("steps", steps) * batch_size
    counts = task_counts(task_rates(sizes, temperature, limit), total)
    if not counts.all():
        none = [name for name, n in zip(found, counts, strict=True) if not n]
        raise ValueError(
            f"An epoch of {total} rows has none of the tasks {none}, whose shares are "
            "too small. Pass more `steps`, or a higher temperature."
        )
    batches = _Batches(found, TaskOrder(sizes, counts, seed), batch_size)
    dataset = tf.data.Dataset.from_generator(batches, output_signature=batches.spec())
    known = tf.data.experimental.assert_cardinality(total // batch_size)
    dataset = dataset.apply(known).prefetch(tf.data.AUTOTUNE)
    labels = {name: task.y for name, task in found.items()}
    setattr(dataset, LABELS, labels)
    return dataset


def labels_of_tasks(data: object) -> dict[str, np.ndarray] | None:
    """Return the labels of a dataset of `task_mixture` by task, or None."""
    return getattr(data, LABELS, None)


class _Batches:
    """Makes the batches of the next epoch each time it is called."""

    def __init__(self, tasks: dict[str, Task], order: TaskOrder, batch_size: int):
        self.tasks = tasks
        self.order = order
        self.batch_size = batch_size
        self.passes = itertools.count()

    def __call__(self) -> Iterator[tuple]:
        rows = self.order.epoch(next(self.passes))
        for first in range(0, len(rows), self.batch_size):
            yield self._batch(rows[first : first + self.batch_size])

    def spec(self) -> tuple:
        """Return the specs of a batch, with fixed shapes."""

        def of(array: np.ndarray) -> tf.TensorSpec:
            kind = tf.string if array.dtype.kind in "OUS" else array.dtype
            return tf.TensorSpec((self.batch_size, *array.shape[1:]), kind)

        first, *_ = self.tasks.values()
        return (
            keras.tree.map_structure(of, first.x),
            {name: of(task.y) for name, task in self.tasks.items()},
            {name: of(task.weight) for name, task in self.tasks.items()},
        )

    def _batch(self, rows: np.ndarray) -> tuple:
        of_task, example = rows[:, 0], rows[:, 1]
        order = np.argsort(np.argsort(of_task, kind="stable"), kind="stable")
        parts = [
            keras.tree.map_structure(lambda a, i=i: a[example[of_task == i]], task.x)
            for i, task in enumerate(self.tasks.values())
        ]
        x = keras.tree.map_structure(lambda *a: np.concatenate(a)[order], *parts)
        y, weight = {}, {}
        for i, (name, task) in enumerate(self.tasks.items()):
            own = of_task == i
            # In the rows of other tasks, a label that the loss of this task can take.
            y[name] = task.y[np.where(own, example, 0)]
            weight[name] = np.where(own, task.weight[np.where(own, example, 0)], 0)
            weight[name] = weight[name].astype("float32")
        return x, y, weight


def _read(tasks: Any) -> dict[str, Task]:
    if not isinstance(tasks, Mapping):
        raise TypeError(
            f"tasks is a {type(tasks).__name__}. Pass a dict from the names of the "
            "tasks to tuples of arrays, (x, y) or (x, y, sample_weight)."
        )
    if not tasks:
        raise ValueError("tasks is empty. Pass at least one task.")
    found = {name: _task(name, data) for name, data in tasks.items()}
    names = list(found)
    for name in names[1:]:
        _check_same(names[0], found[names[0]].x, name, found[name].x)
    return found


def _task(name: str, data: Any) -> Task:
    what = f"tasks[{name!r}]"
    if not isinstance(name, str):
        raise TypeError(f"The name of a task is {name!r}. Pass a string.")
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        kind = type(data).__name__
        kind += f" of {len(data)}" if isinstance(data, tuple) else ""
        raise TypeError(
            f"{what} is a {kind}, so its labels are unknown. Pass a tuple of arrays, "
            "(x, y) or (x, y, sample_weight)."
        )
    if any(each is None for each in data[:2]):
        raise ValueError(
            f"{what} has no {'labels' if data[0] is not None else 'inputs'}. Pass "
            "arrays, or leave the task out."
        )
    x, y, *weight = map_arrays(np.asarray, data)
    if keras.tree.is_nested(y) or y.dtype.kind not in "biuf":
        kind = type(y).__name__ if keras.tree.is_nested(y) else y.dtype
        raise ValueError(
            f"The labels of {what} are a {kind}. A task has one array of numbers. "
            "Number the classes from 0, as kt.data.from_tsv does."
        )
    rows = count_rows((x, y, *weight), what)
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError(
            f"{np.count_nonzero(~np.isfinite(y))} of {y.size} labels of {what} are NaN "
            "or infinite. Remove these examples."
        )
    given = weight and weight[0] is not None
    weight = np.asarray(weight[0], "float32") if given else np.ones(rows, "float32")
    if weight.shape != (rows,) or not np.isfinite(weight).all() or weight.min() < 0:
        raise ValueError(
            f"The sample weights of {what} have the shape {weight.shape}. Pass one "
            f"finite number of 0 or more for each of the {rows} examples."
        )
    if not weight.any():
        raise ValueError(
            f"All sample weights of {what} are 0, so the task would not train. Leave "
            "the task out."
        )
    return Task(x, y, weight)


def _check_same(first: str, x: Any, name: str, other: Any) -> None:
    try:
        keras.tree.assert_same_structure(x, other)
        fits = all(
            a.shape[1:] == b.shape[1:] and (a.dtype == b.dtype or _strings(a, b))
            for a, b in zip(
                keras.tree.flatten(x), keras.tree.flatten(other), strict=True
            )
        )
    except (TypeError, ValueError):
        fits = False
    if not fits:
        one, two = (
            keras.tree.map_structure(lambda a: f"{a.dtype} {a.shape[1:]}", each)
            for each in (x, other)
        )
        raise ValueError(
            f"An example of the task {first!r} is {one}, but one of {name!r} is {two}. "
            "One batch has both, so the structure, shapes and dtypes must be the same. "
            "Cut or pad texts to the same length."
        )


def _strings(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype.kind in "OUS" and b.dtype.kind in "OUS"
