"""Evaluate a model on data, output by output."""

from __future__ import annotations

import heapq
import itertools
from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.analysis.report.by_output import names_by_output
from keras_transfer.analysis.report.positions import is_dense
from keras_transfer.analysis.report.positions import Rows
from keras_transfer.analysis.report.positions import rows_of_batch
from keras_transfer.analysis.report.predictions import Batch
from keras_transfer.analysis.report.predictions import predictions
from keras_transfer.analysis.report.predictions import unchanged
from keras_transfer.analysis.report.reading_outputs import Reading
from keras_transfer.analysis.report.summaries import summary_of
from keras_transfer.analysis.report.summaries import WORST
from keras_transfer.data.class_names import class_names_of
from keras_transfer.data.named_labels import number_names
from keras_transfer.losses.compiled_loss import compiled_loss
from keras_transfer.losses.compiled_loss import compiled_losses
from keras_transfer.losses.compiled_loss import CompiledLoss


class NotFinite(Exception):
    """The model returned NaN or infinity, so its outputs cannot be evaluated."""


def evaluate(
    model: keras.Model, data: Any, class_names: Any = None
) -> tuple[dict, list[Any]]:
    """Return the evaluation of `model` on `data`, and the worst examples.

    Args:
        model: A model.
        data: Arrays `(x, y)`, a batched dataset or a PyDataset.
        class_names: Names of the classes. For several outputs, a list or dict of names.

    Returns:
        A dict that JSON can store, and the examples of its key "worst" as arrays. For a
        model with several outputs, the key "by_output" has one dict for each output, or
        an error text if the output is not finite. The examples are then in the order of
        the outputs.

    Raises:
        TypeError: If `data` is an iterator, which allows only one pass.
        ValueError: If `data` is empty, or its labels do not fit the outputs.
        NotFinite: If outputs are NaN or infinite.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"{model.name!r} is a {type(model).__name__} and not a keras.Model, so it "
            "cannot run on `data`. Leave out `data`."
        )
    with unchanged(model), _keras.masks_predicted(model) as masked:
        batches = predictions(model, data, masked)
        first = next(batches)
        tallies = _tallies(model, first, data, class_names)
        for batch in itertools.chain([first], batches):
            for name, tally in tallies.items():
                tally.add(batch[name])
    if "" in tallies:
        return tallies[""].content()
    content, examples = {"kind": "several", "by_output": {}}, []
    for name, tally in tallies.items():
        try:
            content["by_output"][name], shown = tally.content()
            examples += shown
        except NotFinite as error:
            content["by_output"][name] = str(error)
    return content, examples


def _tallies(
    model: keras.Model, first: dict[str, Batch | None], data: Any, class_names: Any
) -> dict[str, _Tally]:
    if "" in first:
        losses = {"": compiled_loss(model)}
    else:
        losses = compiled_losses(model, [*first])
    given = {}
    if class_names is not None:
        given = names_by_output(model, first, class_names)
    known = getattr(data, "class_names", None) or class_names_of(model)
    return {
        name: _Tally(model, batch, losses[name], given.get(name), known)
        for name, batch in first.items()
        if batch is not None
    }


class _Tally:
    """The evaluation of one output, added up batch by batch."""

    def __init__(
        self,
        model: keras.Model,
        batch: Batch,
        loss: CompiledLoss,
        given: Any,
        known: Any,
    ) -> None:
        self.ignored = loss.ignore_class
        names = given if given is not None else known
        self.named = None
        if batch.labels.dtype.kind in "OSUT" and names:
            self.named = [str(name) for name in names]
        batch = self._numbered(batch)
        self.dense = is_dense(batch)
        rows = next(rows_of_batch(batch, self.dense, self.ignored), None)
        if rows is None:  # no row counts, so read the batch without its mask
            rows = next(rows_of_batch(Batch(*batch[:3]), self.dense, None))
        self.reading = Reading.of(model, rows, loss)
        whole = batch.weights is None and batch.mask is None
        if self.reading.kind == "numbers" and batch.labels.shape == batch.outputs.shape:
            self.dense = self.dense and not whole
        self.summary = summary_of(self.reading, _names(given, known, self.reading))
        self.worst: list[tuple] = []
        self.infinite = self.count = self.rows = self.seen = 0

    def add(self, batch: Batch) -> None:
        """Add a batch, and update the worst examples."""
        batch, owners = self._numbered(batch), set()
        for rows in rows_of_batch(batch, self.dense, self.ignored):
            finite = np.isfinite(rows.outputs.astype("float64"))
            self.infinite += int((~finite.reshape(len(finite), -1).all(1)).sum())
            self.rows += len(rows.labels)
            owners |= set(np.unique(rows.owners()).tolist())
            if not self.infinite:
                self._keep_worst(batch, rows)
        self.count += len(owners)
        self.seen += len(batch.labels)

    def content(self) -> tuple[dict, list[Any]]:
        """Return the evaluation and the worst examples.

        Raises:
            NotFinite: If outputs are not finite.
            ValueError: If no example counts.
        """
        if self.infinite:
            raise NotFinite(
                f"{self.infinite} of {self.rows} outputs are NaN or infinite"
            )
        if not self.rows:
            raise ValueError(
                "No example in `data` counts. All are masked, have a sample weight of "
                "0, or have a label that the loss ignores. Pass data that counts."
            )
        worst = sorted(self.worst, key=lambda item: item[:2], reverse=True)
        content = {
            "kind": self.reading.kind,
            "outputs": self.reading.outputs,
            "examples": self.count,
        }
        if self.dense:
            content["positions"] = self.rows
        content |= self.summary.content() | {"worst": [item[2] for item in worst]}
        return content, [item[3] for item in worst]

    def _keep_worst(self, batch: Batch, rows: Rows) -> None:
        owners = rows.owners()
        for row, mistake in self.summary.add(rows):
            owner = int(owners[row])
            index = self.seen + owner
            key = (mistake["loss"], -index)  # for equal losses, the first index wins
            if len(self.worst) == WORST and key <= self.worst[0][:2]:
                continue
            place = {"position": rows.place(row)} if self.dense else {}
            mistake = {"index": index} | place | mistake
            # The rows of one example can come in several parts. Keep the worst row.
            others = [item for item in self.worst if item[1] != -index]
            if len(others) < len(self.worst):
                if key <= max(item[:2] for item in self.worst if item[1] == -index):
                    continue
                self.worst = others
                heapq.heapify(self.worst)
            heapq.heappush(self.worst, (*key, mistake, batch.example(owner)))
            if len(self.worst) > WORST:
                heapq.heappop(self.worst)

    def _numbered(self, batch: Batch) -> Batch:
        """Return the batch with class numbers instead of class names as labels."""
        if self.named is None:
            return batch
        labels = number_names(batch.labels, self.named)
        return batch._replace(labels=labels.reshape(batch.labels.shape))


def _names(given: Any, known: Any, reading: Reading) -> list[str] | None:
    """Return the class names. The names that the user passed come first."""
    size = reading.num_classes
    if given is None:
        fit = isinstance(known, list | tuple) and len(known) == size
        return [str(name) for name in known] if fit else None
    names = [str(name) for name in given]
    if reading.kind == "numbers":
        raise ValueError(
            f"class_names has {len(names)} names, but the outputs are read as numbers, "
            "which have no classes. Leave out class_names, or compile the model with "
            "a classification loss."
        )
    if len(names) != size or len(set(names)) < size:
        raise ValueError(
            f"class_names is {names}, but the model has {size} classes. Pass the name "
            "of each class once, in the order of the outputs."
        )
    return names
