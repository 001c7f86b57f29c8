"""Decide whether outputs are probabilities, logits or numbers, and read them."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from keras_transfer.analysis.report.predictions import Batch
from keras_transfer.losses.compiled_loss import compiled_loss
from keras_transfer.losses.compiled_loss import CompiledLoss

TINY = 1e-12  # a probability of 0 would have an infinite loss


@dataclasses.dataclass(frozen=True)
class Reading:
    """How to read labels and outputs. The first batch decides this.

    Args:
        kind: "classes" for one class in each example, "labels" for any number of
            labels in each example, or "numbers".
        outputs: "probabilities", "logits" or "numbers".
        num_classes: Number of classes, which is 2 for a single binary output.
    """

    kind: str
    outputs: str
    num_classes: int

    @classmethod
    def of(
        cls, model: keras.Model, batch: Batch, loss: CompiledLoss | None = None
    ) -> Reading:
        """Return how to read `batch`, from the compiled loss or from the labels.

        Args:
            model: The model.
            batch: Rows of labels and outputs, with one row for each example.
            loss: The `CompiledLoss` of this output. Defaults to the compiled loss of a
                model with one output.
        """
        loss = compiled_loss(model) if loss is None else loss
        outputs, labels = batch.outputs, _narrow(batch.labels)
        if labels.dtype.kind not in "biuf":
            raise ValueError(
                f"The labels of `data` have the dtype {labels.dtype}, such as "
                f"{labels.flat[0]!r}. Number the classes from 0, or pass class_names=."
            )
        wide = outputs[:, None] if outputs.ndim == 1 else outputs
        size = wide.shape[-1]
        if not _is_classifier(loss, labels, wide):
            return cls("numbers", "numbers", 0)
        if wide.ndim != 2:
            raise ValueError(
                f"The model {model.name!r} has outputs of shape {outputs.shape}, but "
                f"the labels have the shape {labels.shape}. A report needs one class "
                "or one row of labels for each example, or for each token or pixel. "
                "Pass labels that fit, or leave out `data`."
            )
        one_of_many = size > 1 and (labels.ndim == 1 or _is_one_hot(labels))
        if one_of_many and not (labels.ndim == 2 and loss.is_binary):
            return cls("classes", _of_rows(loss, wide), size)
        outputs = _of_each(model, loss, wide)
        if size == 1:
            return cls("classes", outputs, 2)
        return cls("labels", outputs, size)

    def classes(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Return the true class and the log probabilities of each row."""
        labels = _narrow(batch.labels)
        outputs = batch.outputs.astype("float64")
        outputs = outputs.reshape(len(outputs), -1)
        if outputs.shape[1] == 1:
            yes, no = self._log_probabilities(outputs)
            logs = np.concatenate([no, yes], axis=1)
        elif self.outputs == "logits":
            top = outputs.max(1, keepdims=True)
            total = np.log(np.exp(outputs - top).sum(1, keepdims=True)) + top
            logs = outputs - total
        else:
            logs = np.log(np.maximum(outputs, TINY))
        if labels.ndim == 2:
            _check_shape(labels, outputs)
            return labels.argmax(1), logs
        wrong = (labels < 0) | (labels >= self.num_classes) | (labels % 1 != 0)
        if wrong.any():
            raise ValueError(
                f"{wrong.sum()} of {len(labels)} labels in a batch of `data` are not "
                f"a class of the model, such as {labels[wrong][0]}. Number the "
                f"{self.num_classes} classes from 0 to {self.num_classes - 1}."
            )
        return labels.astype(int), logs

    def labels(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the true labels, and the log probabilities of yes and of no."""
        outputs = batch.outputs.astype("float64")
        _check_shape(batch.labels, outputs)
        if not np.isin(batch.labels, (0, 1)).all():
            raise ValueError(
                f"`data` has labels from {batch.labels.min()} to "
                f"{batch.labels.max()}. Labels of several classes at once must be 0 "
                "or 1."
            )
        return batch.labels.astype(bool), *self._log_probabilities(outputs)

    def numbers(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Return the true and the predicted values, with a row for each example."""
        true, predicted = _narrow(batch.labels), _narrow(batch.outputs)
        _check_shape(true, predicted)
        count = len(true)
        true, predicted = (
            each.reshape(count, -1).astype("float64") for each in (true, predicted)
        )
        return true, predicted

    def _log_probabilities(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.outputs == "logits":
            return -np.logaddexp(0, -outputs), -np.logaddexp(0, outputs)
        if _outside(outputs):
            raise ValueError(
                f"The model returns {outputs.min():.4g} to {outputs.max():.4g}, which "
                "are not probabilities. If they are logits, compile the model with a "
                "loss that has from_logits=True."
            )
        return np.log(np.maximum(outputs, TINY)), np.log(np.maximum(1 - outputs, TINY))


def _is_classifier(loss: CompiledLoss, labels: np.ndarray, outputs: np.ndarray) -> bool:
    if loss.is_classifier is not None:
        return loss.is_classifier
    whole = labels.dtype.kind in "biu"
    if labels.ndim == 1 and outputs.shape[-1] == 1:
        return whole and np.isin(labels, (0, 1)).all()
    if labels.ndim == 1:
        return whole or bool((labels % 1 == 0).all())
    same = labels.shape == outputs.shape
    return same and bool(np.isin(labels, (0, 1)).all())


def _is_one_hot(labels: np.ndarray) -> bool:
    rows = np.abs(labels.sum(1, dtype="float64") - 1) < 1e-3
    return bool(rows.all() and (labels >= 0).all())


def _of_rows(loss: CompiledLoss, outputs: np.ndarray) -> str:
    """Return whether rows of outputs are logits or probabilities.

    Probabilities in float16 only add up to about 1.
    """
    if loss.from_logits:
        return "logits"
    sums = outputs.astype("float64").sum(-1)
    rows = not _outside(outputs) and np.abs(sums - 1).max() < 0.02
    return "probabilities" if rows else "logits"


def _of_each(model: keras.Model, loss: CompiledLoss, outputs: np.ndarray) -> str:
    """Return whether independent outputs are logits or probabilities."""
    if loss.from_logits or _outside(outputs):
        return "logits"
    activation = getattr(model.layers[-1], "activation", None)
    if loss.from_logits is None and activation is keras.activations.linear:
        return "logits"
    return "probabilities"


def _outside(outputs: np.ndarray) -> bool:
    return bool((outputs < 0).any() or (outputs > 1).any())


def _narrow(values: np.ndarray) -> np.ndarray:
    """Return values without a last axis of 1."""
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _check_shape(labels: np.ndarray, outputs: np.ndarray) -> None:
    if labels.shape != outputs.shape:
        raise ValueError(
            f"The labels of `data` have the shape {labels.shape}, but the outputs of "
            f"the model have the shape {outputs.shape}. Pass labels of the same shape."
        )
