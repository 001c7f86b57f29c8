"""The error of each example, from the outputs of a model."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_transfer.analysis.report.predictions import Batch
from keras_transfer.analysis.report.predictions import predictions
from keras_transfer.analysis.report.predictions import unchanged
from keras_transfer.analysis.report.reading_outputs import Reading

MEASURES = {
    "classes": "error rate",
    "labels": "share with a wrong label",
    "numbers": "mean absolute error",
}


def outputs_of(model: keras.Model, data: tuple) -> np.ndarray:
    """Return the outputs of a model on arrays `(x, y)`, and change nothing in it.

    Raises:
        ValueError: If the model has several outputs.
    """
    with unchanged(model):
        batches = list(predictions(model, data))
    if [*batches[0]] != [""]:
        raise ValueError(
            f"The model has the outputs {[*batches[0]]}. kt.retune compares models of "
            "one output."
        )
    return np.concatenate([each[""].outputs for each in batches])


def errors_of(
    model: keras.Model, outputs: np.ndarray, labels: Any
) -> tuple[np.ndarray, str]:
    """Return the error of each example, and the name of their mean.

    Args:
        model: The model whose compiled loss says what labels and outputs mean.
        outputs: Outputs of this or of another model.
        labels: Labels as arrays.

    Raises:
        ValueError: If labels do not fit the outputs, there is an output for each token
            or pixel, or outputs are not finite.
    """
    if not np.isfinite(outputs).all():
        raise ValueError(
            f"{(~np.isfinite(outputs)).sum()} of {outputs.size} outputs on held-out "
            "examples are not finite, so their errors cannot be compared. If this is "
            "after training, lower the learning rate. Otherwise repair the model."
        )
    batch = Batch(None, np.asarray(labels), outputs)
    reading = Reading.of(model, batch)
    if reading.kind == "classes":
        true, logs = reading.classes(batch)
        errors = (logs.argmax(1) != true).astype("float64")
    elif reading.kind == "labels":
        true, yes, no = reading.labels(batch)
        errors = ((yes > no) != true).any(1).astype("float64")
    else:
        true, predicted = reading.numbers(batch)
        errors = np.abs(true - predicted).mean(1)
    return errors, MEASURES[reading.kind]
