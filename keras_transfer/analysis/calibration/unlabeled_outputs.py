"""Compute the probabilities of a classifier for inputs without labels."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_transfer.analysis.calibration.kinds_of_outputs import check_finite_outputs
from keras_transfer.analysis.calibration.kinds_of_outputs import check_probabilities
from keras_transfer.analysis.calibration.labeled_outputs import as_probabilities
from keras_transfer.analysis.domains.outputs import check_domain
from keras_transfer.analysis.domains.outputs import read_domain
from keras_transfer.analysis.report.predictions import unchanged
from keras_transfer.data.examples import BATCH_SIZE


def probabilities_of(model: keras.Model, x: Any, from_logits: bool) -> np.ndarray:
    """Return the probability of each class for each example.

    Args:
        model: A classifier with one output.
        x: Inputs as arrays, or a batched dataset of inputs without labels.
        from_logits: Whether the outputs are logits.

    Raises:
        TypeError: If `x` is of an unknown kind.
        ValueError: If `x` has labels or no examples, or an output is NaN.
    """
    check_domain("x", x, labeled=False)
    with unchanged(model):
        _, (outputs,) = read_domain("x", [model], x, False, BATCH_SIZE)
    outputs = outputs[:, None] if outputs.ndim == 1 else outputs
    outputs = outputs.astype("float64")
    check_finite_outputs(outputs)
    if not from_logits:
        check_probabilities(outputs)
    return as_probabilities(outputs, from_logits)
