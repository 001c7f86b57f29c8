"""Decide whether the outputs of a classifier are logits or probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from keras_transfer.layers.calibration_layer import CalibrationLayer
from keras_transfer.losses.compiled_loss import compiled_loss

NEAR_ONE = 0.01  # sums of probabilities in half precision
FIX = "Pass from_logits=True if they are logits, or from_logits=False."


def check_one_output(model: keras.Model, names: Sequence[str] = ()) -> None:
    """Check that a model has one output.

    Args:
        model: The model.
        names: Names of its outputs, if they are known from a batch.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If it has several outputs.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"The model is a {type(model).__name__}, not a keras.Model. To use a "
            "layer, wrap it in keras.Sequential."
        )
    outputs = getattr(model, "outputs", None) or []
    if max(len(outputs), len(names)) > 1:
        if not names:
            by_name = isinstance(model.output, dict)
            names = model.output if by_name else model.output_names
        names = list(names)
        raise ValueError(
            f"The model {model.name!r} has several outputs, {names}, so it is not "
            "clear which one has the classes. Make a model with one of them: "
            "keras.Model(model.input, model.output[...])."
        )


def check_finite_outputs(outputs: np.ndarray) -> None:
    """Check that no output is NaN or infinite.

    Raises:
        ValueError: If one is.
    """
    broken = ~np.isfinite(outputs).all(1)
    if broken.any():
        raise ValueError(
            f"The outputs are NaN or infinite for {broken.sum()} of {len(outputs)} "
            f"examples (the first has the index {broken.argmax()}). Check the examples "
            "and the weights of the model."
        )


def check_probabilities(outputs: np.ndarray) -> None:
    """Check that each row is a distribution.

    Raises:
        ValueError: If a number is outside 0 to 1, or a row does not sum to 1.
    """
    wrong = _outside(outputs)
    if wrong.any():
        raise ValueError(
            f"{wrong.sum()} of {len(outputs)} rows have numbers outside 0 to 1, from "
            f"{outputs.min():.4g} to {outputs.max():.4g}, so they are not "
            "probabilities. For the logits of a model, pass from_logits=True; for "
            "arrays, apply scipy.special.softmax first."
        )
    sums = outputs.sum(1)
    wrong = np.abs(sums - 1) > NEAR_ONE
    if outputs.shape[1] > 1 and wrong.any():
        raise ValueError(
            f"{wrong.sum()} of {len(outputs)} rows of probabilities do not sum to 1: "
            f"the row {wrong.argmax()} sums to {sums[wrong.argmax()]:.4g}. Each "
            "example must have exactly one class. For several labels in an example, "
            "use one column at a time; for logits of a model, pass from_logits=True."
        )


def are_logits(
    model: keras.Model, outputs: np.ndarray, from_logits: bool | None
) -> bool:
    """Return whether outputs are logits, and check them.

    Args:
        model: The model.
        outputs: Its outputs, `(examples, classes)`.
        from_logits: What the user says, or None.

    Raises:
        ValueError: If the outputs contradict what the user or the loss says, or if it
            is unclear, or if each output is a separate yes or no.
    """
    if from_logits is not None and not isinstance(from_logits, bool | np.bool_):
        raise ValueError(f"from_logits={from_logits!r} must be True, False or None.")
    several, loss = outputs.shape[1] > 1, compiled_loss(model)
    if several and loss.is_binary:
        raise ValueError(
            f"{model.name!r} has {outputs.shape[1]} outputs and the loss "
            f"{loss.name!r}, so each output is a separate yes or no. Each example must "
            "have exactly one class. Use a model with one of the outputs."
        )
    last = _last_layer(model)
    said = loss.from_logits if from_logits is None else bool(from_logits)
    if said is None and isinstance(last, CalibrationLayer):
        said = last.from_logits
    activation = getattr(last, "activation", None)
    activated = isinstance(last, keras.layers.Softmax) or activation in (
        keras.activations.softmax,
        keras.activations.sigmoid,
    )
    if said is None and not several:
        said = _said_of_one(outputs, activation, activated)
    distributions = several and _are_distributions(outputs)
    if said is None:
        said = not distributions
    if said and (activated or distributions):
        raise ValueError(
            f"The outputs of {model.name!r} are probabilities, but "
            f"{'from_logits=True' if from_logits else 'the compiled loss'} says that "
            "they are logits. Compile the model with from_logits=False, or remove the "
            "activation of its last layer."
        )
    if not said:
        check_probabilities(outputs)
    return said


def _said_of_one(
    outputs: np.ndarray, activation: object, activated: bool
) -> bool | None:
    if activated:
        return False
    if activation is keras.activations.linear or _outside(outputs).any():
        return True
    raise ValueError(
        "The model has one output with values from "
        f"{outputs.min():.4g} to {outputs.max():.4g}, and is not compiled with a loss "
        f"that says what they are. {FIX}"
    )


def _last_layer(model: keras.Model) -> object:
    """Return the layer that gives the output, inside of nested models too."""
    while isinstance(model, keras.Model) and model.layers:
        model = model.layers[-1]
    return model


def _are_distributions(outputs: np.ndarray) -> bool:
    sums = outputs.sum(1)
    return not _outside(outputs).any() and bool((np.abs(sums - 1) <= NEAR_ONE).all())


def _outside(outputs: np.ndarray) -> np.ndarray:
    return ((outputs < 0) | (outputs > 1)).any(1)
