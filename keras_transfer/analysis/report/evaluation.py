"""What a model gets right and wrong on data: classes, labels or numbers."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_transfer.analysis.report.predictions import Batch
from keras_transfer.analysis.report.predictions import predictions
from keras_transfer.analysis.report.predictions import unchanged
from keras_transfer.analysis.report.reading_outputs import Reading

WORST = 10  # examples shown
LARGEST = 50  # classes of a confusion matrix
PAIRS = 10  # most confused pairs of classes


class NotFinite(Exception):
    """The model gave NaN or infinity, so nothing can be counted."""


def evaluate(model: keras.Model, data: Any) -> tuple[dict, list[Any]]:
    """Return what `model` gets right on `data`, and its worst examples.

    Args:
        model: A model of one output.
        data: Arrays `(x, y)`, a batched dataset or a PyDataset.

    Returns:
        A JSON-plain dict, and the examples of its "worst" as arrays.

    Raises:
        TypeError: If `data` cannot be gone through again.
        ValueError: If it is empty, or its labels do not fit the outputs.
        NotFinite: If outputs are NaN or infinite.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"{model.name!r} is a {type(model).__name__} and no keras.Model, so it "
            "cannot be run on `data`. Leave `data` out."
        )
    with unchanged(model):
        batches = predictions(model, data)
        first = next(batches)
        reading = Reading.of(model, first)
        summary = {"classes": _Classes, "labels": _Labels, "numbers": _Numbers}
        names = getattr(data, "class_names", None)
        summary = summary[reading.kind](reading, names)
        count, worst = _count(summary, itertools.chain([first], batches))
    content = {"kind": reading.kind, "outputs": reading.outputs, "examples": count}
    content |= summary.content() | {"worst": [found for found, _ in worst]}
    return content, [example for _, example in worst]


def _count(summary: Any, batches: Iterable[Batch]) -> tuple[int, list[tuple]]:
    """Add all batches to `summary`; return their examples, and the worst, in order."""
    worst, infinite, count = [], 0, 0
    for batch in batches:
        finite = np.isfinite(batch.outputs.astype("float64"))
        infinite += int((~finite.reshape(len(finite), -1).all(1)).sum())
        for index, mistake in () if infinite else summary.add(batch):
            key = (mistake["loss"], -(count + index))  # the first of equals
            if len(worst) < WORST or key > worst[0][:2]:
                mistake = {"index": count + index} | mistake
                heapq.heappush(worst, (*key, mistake, batch.example(index)))
            if len(worst) > WORST:
                heapq.heappop(worst)
        count += len(batch.labels)
    if infinite:
        raise NotFinite(f"{infinite} of {count} outputs are NaN or infinite")
    worst.sort(key=lambda item: item[:2], reverse=True)
    return count, [item[2:] for item in worst]


class _Classes:
    """Exactly one class an example."""

    def __init__(self, reading: Reading, names: Any) -> None:
        self.reading = reading
        self.names = _names(names, reading.num_classes)
        self.true, self.predicted = [], []

    def add(self, batch: Batch) -> Iterator[tuple[int, dict]]:
        true, logs = self.reading.classes(batch)
        predicted = logs.argmax(1)
        self.true.append(true)
        self.predicted.append(predicted)
        for i in np.flatnonzero(predicted != true):
            loss = -logs[i, true[i]]
            yield (
                int(i),
                {
                    "true": self.names[true[i]],
                    "predicted": self.names[predicted[i]],
                    "probability": float(np.exp(logs[i, predicted[i]])),
                    "probability_of_true": float(np.exp(-loss)),
                    "loss": float(loss),
                },
            )

    def content(self) -> dict:
        from sklearn.metrics import confusion_matrix

        size = len(self.names)
        true, predicted = map(np.concatenate, (self.true, self.predicted))
        matrix = confusion_matrix(true, predicted, labels=range(size))
        counts = matrix.sum(1)
        off = matrix - np.diag(np.diag(matrix))
        pairs = np.argsort(-off, axis=None, kind="stable")[:PAIRS]
        pairs = [np.unravel_index(pair, off.shape) for pair in pairs]
        return {
            "accuracy": float(np.mean(true == predicted)),
            "classes": [
                {
                    "name": self.names[i],
                    "examples": int(counts[i]),
                    "recall": float(matrix[i, i] / counts[i]) if counts[i] else None,
                }
                for i in range(size)
            ],
            "confusion_matrix": matrix.tolist() if size <= LARGEST else None,
            "most_confused": [
                {
                    "true": self.names[i],
                    "predicted": self.names[j],
                    "examples": int(off[i, j]),
                }
                for i, j in pairs
                if off[i, j]
            ],
        }


class _Labels:
    """Any number of labels an example, each yes or no."""

    def __init__(self, reading: Reading, names: Any) -> None:
        self.reading = reading
        self.names = _names(names, reading.num_classes)
        self.true, self.predicted = [], []

    def add(self, batch: Batch) -> Iterator[tuple[int, dict]]:
        true, yes, no = self.reading.labels(batch)
        predicted = yes > no
        self.true.append(true)
        self.predicted.append(predicted)
        losses = -np.where(true, yes, no).mean(1)
        for i in np.flatnonzero((predicted != true).any(1)):
            yield (
                int(i),
                {
                    "true": self._said(true[i]),
                    "predicted": self._said(predicted[i]),
                    "loss": float(losses[i]),
                },
            )

    def content(self) -> dict:
        true, predicted = map(np.concatenate, (self.true, self.predicted))
        hits, counts = (true & predicted).sum(0), true.sum(0)
        return {
            "accuracy": float(np.mean((true == predicted).all(1))),
            "label_accuracy": float(np.mean(true == predicted)),
            "classes": [
                {
                    "name": name,
                    "examples": int(counts[i]),
                    "recall": float(hits[i] / counts[i]) if counts[i] else None,
                }
                for i, name in enumerate(self.names)
            ],
        }

    def _said(self, row: np.ndarray) -> str:
        return ", ".join(itertools.compress(self.names, row)) or "none"


class _Numbers:
    """Numbers to come near to."""

    def __init__(self, reading: Reading, names: Any) -> None:
        self.reading = reading
        self.absolute, self.squared, self.count = 0.0, 0.0, 0

    def add(self, batch: Batch) -> Iterator[tuple[int, dict]]:
        true, predicted = self.reading.numbers(batch)
        errors = np.abs(predicted - true)
        self.absolute += errors.sum()
        self.squared += np.square(errors).sum()
        self.count += errors.size
        means = errors.mean(1)
        for i in np.flatnonzero(means):
            yield (
                int(i),
                {
                    "true": _shown(true[i]),
                    "predicted": _shown(predicted[i]),
                    "loss": float(means[i]),
                },
            )

    def content(self) -> dict:
        return {
            "mean_absolute_error": float(self.absolute / self.count),
            "root_mean_squared_error": float(np.sqrt(self.squared / self.count)),
        }


def _names(names: Any, size: int) -> list[str]:
    """Return the names that a dataset knows its classes by, or their numbers."""
    if isinstance(names, list | tuple) and len(names) == size:
        return [str(name) for name in names]
    return [str(number) for number in range(size)]


def _shown(values: np.ndarray) -> str:
    """Return a few numbers as text."""
    shown = ", ".join(f"{value:.4g}" for value in values[:4])
    return f"{shown}, ... ({len(values)})" if len(values) > 4 else shown
