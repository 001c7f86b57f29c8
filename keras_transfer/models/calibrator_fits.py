"""Choose the numbers of a calibration layer for outputs and labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keras_transfer.analysis.calibration.labeled_outputs import LabeledOutputs
from keras_transfer.data.labels import listed
from keras_transfer.layers.calibration_layer import CalibrationLayer
from keras_transfer.layers.isotonic_calibration import IsotonicCalibration
from keras_transfer.layers.temperature_scaling import TemperatureScaling
from keras_transfer.layers.vector_scaling import VectorScaling

LOWEST, HIGHEST = 0.01, 100.0  # temperatures
STEPS = 1000  # of L-BFGS
DECIMALS = 5  # of probabilities where a curve can bend
NAME = "calibration"


def fit_temperature(read: LabeledOutputs) -> TemperatureScaling:
    """Return the temperature with the lowest log loss.

    Raises:
        ValueError: If no temperature is best.
    """
    from scipy.optimize import minimize_scalar

    logits, rows = _both_columns(read.logits), np.arange(len(read.labels))
    _check_mistakes(logits, read, "temperature: each lower one")

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(_log_losses(scaled)[rows, read.labels].mean())

    ends = np.log(LOWEST), np.log(HIGHEST)
    found = minimize_scalar(
        loss, bounds=ends, method="bounded", options={"xatol": 1e-9}
    )
    temperature = float(np.exp(found.x))
    if not 1.01 * LOWEST < temperature < 0.99 * HIGHEST:
        more = "no more than a guess" if temperature > 1 else "almost always right"
        raise ValueError(
            f"The best temperature is {temperature:.4g} or beyond, because the outputs "
            f"are {more} for these {len(rows)} examples. Check that the labels belong "
            "to the outputs, and pass more held-out examples."
        )
    return TemperatureScaling(temperature, from_logits=read.from_logits, name=NAME)


def fit_vector(read: LabeledOutputs) -> VectorScaling:
    """Return the factors and offsets with the lowest log loss.

    Raises:
        ValueError: If no numbers are best.
    """
    from scipy.optimize import minimize

    logits, width = read.logits, read.outputs.shape[1]
    count = len(logits)
    right = np.eye(read.num_classes)[read.labels]

    def loss(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = _both_columns(logits * numbers[:width] + numbers[width:])
        losses = _log_losses(scaled)
        errors = (np.exp(-losses) - right)[:, -width:] / count
        slopes = np.concatenate([(errors * logits).sum(0), errors.sum(0)])
        return float((losses * right).sum() / count), slopes

    start = np.repeat([1.0, 0.0], width)
    options = {"maxiter": STEPS, "gtol": 1e-8, "ftol": 1e-14}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    factors, offsets = found.x[:width], found.x[width:]
    if width > 1:
        offsets = offsets - offsets.mean()  # the softmax is the same
    scaled = _both_columns(logits * factors + offsets)
    _check_mistakes(scaled, read, "factor: each larger one")
    if not np.isfinite(found.x).all():
        raise ValueError(
            f"The factors and offsets became {found.x} for {count} examples. Pass "
            'more held-out examples, or use method="temperature".'
        )
    return VectorScaling(
        factors.tolist(), offsets.tolist(), from_logits=read.from_logits, name=NAME
    )


def fit_isotonic(read: LabeledOutputs) -> IsotonicCalibration:
    """Return the rising curves with the lowest squared error, one for each class."""
    from sklearn.isotonic import IsotonicRegression

    # A step between probabilities that float32 cannot tell apart would be noise.
    probabilities = np.clip(read.probabilities, 0, 1).round(DECIMALS)
    places = [1] if read.num_classes == 2 else range(read.num_classes)
    found = []
    for place in places:
        curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        curve.fit(probabilities[:, place], read.labels == place)
        found.append((curve.X_thresholds_, curve.y_thresholds_))
    longest = max(len(x) for x, _ in found)
    x, y = (
        [
            np.pad(each[i], (0, longest - len(each[i])), "edge").tolist()
            for each in found
        ]
        for i in (0, 1)
    )
    return IsotonicCalibration(x, y, from_logits=read.from_logits, name=NAME)


FITS: dict[str, Callable[[LabeledOutputs], CalibrationLayer]] = {
    "temperature": fit_temperature,
    "vector": fit_vector,
    "isotonic": fit_isotonic,
}


def check_each_class(read: LabeledOutputs, method: str, folds: int) -> None:
    """Check that each class has examples in each fold.

    Raises:
        ValueError: If a class has fewer.
    """
    counts = np.bincount(read.labels, minlength=read.num_classes)
    few = [name for name, n in zip(read.names, counts, strict=True) if n < folds]
    if few:
        raise ValueError(
            f"method={method!r} chooses numbers for each class, but {len(few)} of "
            f"{read.num_classes} classes have fewer than {folds} examples, one for "
            f"each fold: {listed(few)}. Pass more held-out examples of these, or use "
            'method="temperature", which has one number.'
        )


def _check_mistakes(logits: np.ndarray, read: LabeledOutputs, what: str) -> None:
    if (logits.argmax(1) == read.labels).all():
        raise ValueError(
            f"All {len(logits)} examples, or those of a part of the folds, are "
            f"classified correctly, so there is no best {what} has a lower loss. "
            "Pass more held-out examples, and none that the model was trained on."
        )


def _both_columns(logits: np.ndarray) -> np.ndarray:
    if logits.shape[1] == 1:
        return np.concatenate([np.zeros_like(logits), logits], axis=1)
    return logits


def _log_losses(logits: np.ndarray) -> np.ndarray:
    from scipy.special import logsumexp

    return logsumexp(logits, axis=1, keepdims=True) - logits
