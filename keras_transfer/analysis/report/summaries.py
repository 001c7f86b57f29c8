"""Add up metrics and mistakes over rows of labels and outputs."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_transfer.analysis.report.positions import Rows
from keras_transfer.analysis.report.reading_outputs import Reading

LARGEST = 50  # largest number of classes of a confusion matrix
PAIRS = 10  # number of most confused pairs of classes
WORST = 10  # number of worst examples


def summary_of(reading: Reading, names: list[str] | None) -> Any:
    """Return an object that adds up rows of the kind in `reading`.

    Args:
        reading: How to read labels and outputs.
        names: Names of the classes, or None to use their numbers.
    """
    kinds = {"classes": _Classes, "labels": _Labels, "numbers": _Numbers}
    return kinds[reading.kind](
        reading, names or [str(number) for number in range(reading.num_classes)]
    )


class _Classes:
    """Summary of rows with exactly one class."""

    def __init__(self, reading: Reading, names: list[str]) -> None:
        self.reading, self.names = reading, names
        self.pairs = collections.Counter()  # by true class * classes + predicted class

    def add(self, rows: Rows) -> Iterator[tuple[int, dict]]:
        true, logs = self.reading.classes(rows)
        predicted = logs.argmax(1)
        codes = true.astype("int64") * len(self.names) + predicted
        for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
            self.pairs[int(code)] += int(count)
        wrong = np.flatnonzero(predicted != true)
        losses = -logs[wrong, true[wrong]]
        for i, loss in _worst(rows, wrong, losses):
            yield (
                i,
                {
                    "true": self.names[true[i]],
                    "predicted": self.names[predicted[i]],
                    "probability": float(np.exp(logs[i, predicted[i]])),
                    "probability_of_true": float(np.exp(-loss)),
                    "loss": loss,
                },
            )

    def content(self) -> dict:
        size = len(self.names)
        counts, hits, predicted = np.zeros((3, size), "int64")
        for code, count in self.pairs.items():
            counts[code // size] += count
            predicted[code % size] += count
            if code // size == code % size:
                hits[code // size] += count
        matrix = None
        if size <= LARGEST:
            matrix = [
                [self.pairs[i * size + j] for j in range(size)] for i in range(size)
            ]
        confused = [
            (-n, code) for code, n in self.pairs.items() if code // size != code % size
        ]
        return {
            "accuracy": float(hits.sum() / counts.sum()),
            "classes": _classes(self.names, counts, hits, predicted),
            "confusion_matrix": matrix,
            "most_confused": [
                {
                    "true": self.names[code // size],
                    "predicted": self.names[code % size],
                    "examples": -negative,
                }
                for negative, code in sorted(confused)[:PAIRS]
            ],
        }


class _Labels:
    """Summary of rows with several labels, each yes or no."""

    def __init__(self, reading: Reading, names: list[str]) -> None:
        self.reading, self.names = reading, names
        # These become arrays with a value for each label.
        self.hits = self.counts = self.predicted = 0
        self.rows = self.right = self.single = 0

    def add(self, rows: Rows) -> Iterator[tuple[int, dict]]:
        true, yes, no = self.reading.labels(rows)
        predicted = yes > no
        same = predicted == true
        self.rows += len(true)
        self.right += int(same.all(1).sum())
        self.single += int(same.sum())
        self.hits = self.hits + (true & predicted).sum(0)
        self.counts = self.counts + true.sum(0)
        self.predicted = self.predicted + predicted.sum(0)
        losses = -np.where(true, yes, no).mean(1)
        wrong = np.flatnonzero(~same.all(1))
        for i, loss in _worst(rows, wrong, losses[wrong]):
            yield (
                i,
                {
                    "true": self._said(true[i]),
                    "predicted": self._said(predicted[i]),
                    "loss": loss,
                },
            )

    def content(self) -> dict:
        return {
            "accuracy": self.right / self.rows,
            "label_accuracy": self.single / (self.rows * len(self.names)),
            "classes": _classes(self.names, self.counts, self.hits, self.predicted),
        }

    def _said(self, row: np.ndarray) -> str:
        return ", ".join(itertools.compress(self.names, row)) or "none"


class _Numbers:
    """Summary of rows of numbers, for regression."""

    def __init__(self, reading: Reading, names: list[str]) -> None:
        self.reading = reading
        self.absolute, self.squared, self.count = 0.0, 0.0, 0

    def add(self, rows: Rows) -> Iterator[tuple[int, dict]]:
        true, predicted = self.reading.numbers(rows)
        errors = np.abs(predicted - true)
        self.absolute += errors.sum()
        self.squared += np.square(errors).sum()
        self.count += errors.size
        means = errors.mean(1)
        wrong = np.flatnonzero(means)
        for i, loss in _worst(rows, wrong, means[wrong]):
            shown = {"true": _shown(true[i]), "predicted": _shown(predicted[i])}
            yield i, shown | {"loss": loss}

    def content(self) -> dict:
        return {
            "mean_absolute_error": float(self.absolute / self.count),
            "root_mean_squared_error": float(np.sqrt(self.squared / self.count)),
        }


def _worst(
    rows: Rows, wrong: np.ndarray, losses: np.ndarray
) -> Iterator[tuple[int, float]]:
    """Yield rows with the largest losses, and the losses, one row for each example."""
    order = np.lexsort((wrong, -losses))
    _, first = np.unique(rows.owners()[wrong][order], return_index=True)
    for k in np.sort(first)[:WORST]:
        yield int(wrong[order[k]]), float(losses[order[k]])


def _classes(
    names: list[str], counts: np.ndarray, hits: np.ndarray, predicted: np.ndarray
) -> list[dict]:
    return [
        {
            "name": name,
            "examples": int(counts[i]),
            "predicted": int(predicted[i]),
            "recall": float(hits[i] / counts[i]) if counts[i] else None,
        }
        for i, name in enumerate(names)
    ]


def _shown(values: np.ndarray) -> str:
    """Return the first numbers as text."""
    shown = ", ".join(f"{value:.4g}" for value in values[:4])
    return f"{shown}, ... ({len(values)})" if len(values) > 4 else shown
