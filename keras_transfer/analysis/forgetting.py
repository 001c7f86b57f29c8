"""Forgetting: the accuracy on every task after each task that a model learns."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._arguments import unique_names
from keras_transfer.analysis.arrays import as_classes
from keras_transfer.analysis.domains.outputs import check_domain
from keras_transfer.analysis.domains.outputs import read_domain
from keras_transfer.analysis.report.predictions import unchanged
from keras_transfer.data.examples import BATCH_SIZE
from keras_transfer.losses.compiled_loss import says_logits

START = "start"


@keras.saving.register_keras_serializable(package="keras_transfer")
class Forgetting(keras.callbacks.Callback):
    """Measure what a model forgets: its accuracy on each task, after each task.

    Pass the callback to every `fit` of a sequence of tasks. It measures the accuracy on
    the test data of all tasks before the first `fit` and after each one. Print it for
    the table, with a row for each `fit` and a column for each task, and

    - average accuracy: the mean of the last row over the tasks learned so far
    - backward transfer: the mean change since a task was learned, of all tasks before
      the last. Below 0 is forgetting.
    - forward transfer: the mean accuracy on a task just before it is learned, minus the
      accuracy at the start, of all tasks after the first

    A value that is not defined yet is None. The callback does not change the model. The
    History of `fit` gets the table too, and `kt.report` shows it.

    Args:
        data: Dict from the names of the tasks to their held-out data: `(x, y)` as
            arrays, or a batched dataset. y are class numbers or one-hot rows.
        tasks: Names of the tasks that the `fit` calls learn, in order. A task of `data`
            that is not among them was learned before. A task may lack data. Defaults to
            None: the tasks of `data`.
        models: Dict from a task to the model that predicts it, if it is not the model
            of the `fit`: such as the old classifier on the same backbone. Between two
            `fit` calls, more can be added to `forgetting.models`. Defaults to None.

    Raises:
        TypeError: If `data` is not a dict, or data can be read only once.
        ValueError: If data is empty or has no labels, or a name is unknown. In `fit`,
            if a label is out of the range of the model, or if there are more `fit`
            calls than tasks.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        x, y = np.random.rand(16, 4), np.arange(16) % 2
        tasks = {"first": (x, y), "second": (x[:, ::-1], y)}
        forgetting = kt.analysis.Forgetting(tasks)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
        for x, y in tasks.values():
            model.fit(x, y, callbacks=[forgetting], verbose=0)
        print(forgetting)
        assert forgetting.accuracies.shape == (3, 2)
        ```

    Reference:
        Lopez-Paz and Ranzato 2017, Gradient Episodic Memory for Continual Learning,
        arXiv:1706.08840.
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        *,
        tasks: Sequence[str] | None = None,
        models: Mapping[str, keras.Model] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(data, Mapping) or not data:
            raise TypeError(
                f"data={data!r} is not a dict with at least one task. Pass a dict from "
                "the name of each task to its test data (x, y)."
            )
        self.names = unique_names("the names of data", list(data))
        self.tasks = self.names if tasks is None else unique_names("tasks", tasks)
        self._data, self.models = dict(data), dict(models or {})
        for name in self.models:
            if name not in self.names:
                raise ValueError(
                    f"models has {name!r}, but data has only {list(self.names)}."
                )
        for name, each in data.items():
            check_domain(f"data[{name!r}]", each, True)
        self._rows: list[list[float]] = []

    @property
    def accuracies(self) -> np.ndarray:
        """The accuracies: rows are the start and each `fit`, columns the tasks."""
        return np.array(self._rows).reshape(-1, len(self.names))

    @property
    def average_accuracy(self) -> float | None:
        """The mean of the last row over the tasks that were learned so far."""
        return _mean([self._rows[-1][place] for place, _ in self._learned()])

    @property
    def backward_transfer(self) -> float | None:
        """The mean change of a task since it was learned; below 0 is forgetting."""
        return _mean(
            [
                self._rows[-1][place] - self._rows[row][place]
                for place, row in self._learned()
                if row < len(self._rows) - 1
            ]
        )

    @property
    def forward_transfer(self) -> float | None:
        """The mean gain on a task from the tasks before it."""
        return _mean(
            [
                self._rows[row - 1][place] - self._rows[0][place]
                for place, row in self._learned()
                if row > 1
            ]
        )

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Measure all tasks before the first `fit`."""
        if len(self._rows) > len(self.tasks):
            raise ValueError(
                f"All tasks {list(self.tasks)} have been learned, so it is not clear "
                "which task this `fit` learns. Name it in `tasks`, or start with a new "
                "Forgetting."
            )
        if not self._rows:
            self._rows.append(self._measured())

    def on_train_end(self, logs: dict | None = None) -> None:
        """Measure all tasks after a `fit`, and give the table to its History."""
        self._rows.append(self._measured())
        history = getattr(self.model, "history", None)
        if history is not None:
            history.forgetting = self.to_dict()

    def get_config(self) -> dict:
        """Return the arguments without `data` and `models`.

        To make the callback again, pass the config and these two to the class.
        """
        return {"tasks": list(self.tasks)}

    def to_dict(self) -> dict:
        """Return the table and its summary as a dict that JSON can store."""
        rows = [START, *self.tasks][: len(self._rows)]
        return {
            "accuracies": {
                row: dict(zip(self.names, values, strict=True))
                for row, values in zip(rows, self._rows, strict=True)
            },
            "average_accuracy": self.average_accuracy,
            "backward_transfer": self.backward_transfer,
            "forward_transfer": self.forward_transfer,
        }

    def restore(self, result: Mapping) -> None:
        """Continue from the `to_dict` of an earlier process.

        Raises:
            ValueError: If it is of other tasks.
        """
        rows = result["accuracies"]
        wanted = [START, *self.tasks][: len(rows)]
        if list(rows) != wanted or any(
            set(x) != set(self.names) for x in rows.values()
        ):
            raise ValueError(
                f"The result has the rows {list(rows)}, but these tasks are "
                f"{[START, *self.tasks]} with data of {list(self.names)}. Pass the "
                "to_dict() of the same tasks."
            )
        self._rows = [[row[name] for name in self.names] for row in rows.values()]

    def __str__(self) -> str:
        lines = [("after", *self.names)]
        for row, values in self.to_dict()["accuracies"].items():
            lines.append((row, *(f"{values[name]:.3f}" for name in self.names)))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = [
            "  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])])
            for first, *rest in lines
        ]
        shown.insert(1, "-" * len(shown[0]))
        for what in ("average_accuracy", "backward_transfer", "forward_transfer"):
            value = getattr(self, what)
            sign = "" if what == "average_accuracy" else "+"
            text = "not defined" if value is None else f"{value:{sign}.3f}"
            shown.append(f"{what.replace('_', ' ')}: {text}")
        return "\n".join(shown)

    def _learned(self) -> list[tuple[int, int]]:
        """Return the column of each learned task, and the row after it was learned."""
        rows = {name: row for row, name in enumerate(self.tasks, 1)}
        found = [(place, rows.get(name, 0)) for place, name in enumerate(self.names)]
        return [(place, row) for place, row in found if row < len(self._rows)]

    def _measured(self) -> list[float]:
        models = {name: self.models.get(name, self.model) for name in self.names}
        found = {}
        for model in {id(each): each for each in models.values()}.values():
            with unchanged(model), _keras.scope(model):
                for name in self.names:
                    if models[name] is model:
                        found[name] = self._accuracy(name, model)
        return [found[name] for name in self.names]

    def _accuracy(self, name: str, model: keras.Model) -> float:
        y, (outputs,) = read_domain(
            f"data[{name!r}]", [model], self._data[name], True, BATCH_SIZE
        )
        if outputs.ndim == 1:
            outputs = outputs[:, None]
        if outputs.ndim != 2:
            raise ValueError(
                f"{model.name!r} has outputs of shape {outputs.shape} for the task "
                f"{name!r}, but the accuracy needs one row of classes for each "
                "example. Pass the model of the task in `models`."
            )
        labels = as_classes(y, max(outputs.shape[1], 2))
        if outputs.shape[1] > 1:
            return float(np.mean(outputs.argmax(1) == labels))
        middle = 0.0 if says_logits(model) else 0.5
        return float(np.mean((outputs[:, 0] > middle) == labels))


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
