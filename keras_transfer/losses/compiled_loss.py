"""Read from the compiled loss what the labels and outputs of a model are."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

SPARSE = "sparse"  # one class of several, as an integer
ONE_HOT = "one-hot"  # one class of several, as a row with a column for each class
BINARY = "binary"  # each output is a separate yes or no
NUMBERS = "numbers"

# The labels that each Keras loss and its subclasses take. A loss that is missing here
# takes several kinds (Hinge: -1 and 1, or 0 and 1), or a kind that has no name above.
LABELS = {
    keras.losses.SparseCategoricalCrossentropy: SPARSE,
    keras.losses.sparse_categorical_crossentropy: SPARSE,
    keras.losses.CategoricalGeneralizedCrossEntropy: SPARSE,
    keras.losses.categorical_generalized_cross_entropy: SPARSE,
    keras.losses.CategoricalCrossentropy: ONE_HOT,
    keras.losses.categorical_crossentropy: ONE_HOT,
    keras.losses.CategoricalFocalCrossentropy: ONE_HOT,
    keras.losses.categorical_focal_crossentropy: ONE_HOT,
    keras.losses.BinaryCrossentropy: BINARY,
    keras.losses.binary_crossentropy: BINARY,
    keras.losses.BinaryFocalCrossentropy: BINARY,
    keras.losses.binary_focal_crossentropy: BINARY,
    keras.losses.MeanSquaredError: NUMBERS,
    keras.losses.mean_squared_error: NUMBERS,
    keras.losses.MeanAbsoluteError: NUMBERS,
    keras.losses.mean_absolute_error: NUMBERS,
    keras.losses.MeanAbsolutePercentageError: NUMBERS,
    keras.losses.mean_absolute_percentage_error: NUMBERS,
    keras.losses.MeanSquaredLogarithmicError: NUMBERS,
    keras.losses.mean_squared_logarithmic_error: NUMBERS,
    keras.losses.Huber: NUMBERS,
    keras.losses.huber: NUMBERS,
    keras.losses.LogCosh: NUMBERS,
    keras.losses.log_cosh: NUMBERS,
    keras.losses.Poisson: NUMBERS,
    keras.losses.poisson: NUMBERS,
}
# Whether the outputs are logits, for Keras losses without an argument `from_logits`.
LOGITS = {
    keras.losses.CategoricalGeneralizedCrossEntropy: False,
    keras.losses.categorical_generalized_cross_entropy: False,
    keras.losses.KLDivergence: False,
    keras.losses.kl_divergence: False,
    keras.losses.Dice: False,
    keras.losses.dice: False,
    keras.losses.Tversky: False,
    keras.losses.tversky: False,
    keras.losses.CTC: True,
    keras.losses.ctc: True,
}
# Keras chooses one of its three crossentropies when it gets the first batch.
ANY_CROSSENTROPY = ("crossentropy", "ce")
# For a user-defined loss, only the name can show its kind.
NAMES = {
    "classifier": re.compile("cross_?entropy", re.IGNORECASE),
    NUMBERS: re.compile("squared|absolute|huber|log_?cosh|poisson", re.IGNORECASE),
    BINARY: re.compile("binary", re.IGNORECASE),
}


@dataclass(frozen=True)
class CompiledLoss:
    """Properties of a loss; None for each property that the loss does not define.

    Args:
        name: Name of the loss, for messages.
        labels: "sparse", "one-hot", "binary" or "numbers", for a loss of Keras.
        from_logits: Whether the outputs are logits; if False, probabilities.
        is_classifier: Whether the outputs are classes; if False, numbers.
        is_binary: Whether each output is a separate yes or no.
        ignore_class: The label of examples that the loss ignores.
    """

    name: str = "None"
    labels: str | None = None
    from_logits: bool | None = None
    is_classifier: bool | None = None
    is_binary: bool = False
    ignore_class: int | None = None


def compiled_loss(model: keras.Model) -> CompiledLoss:
    """Return the properties of the compiled loss of a model with one output."""
    return read_loss(model.loss if model.compiled else None)


def compiled_losses(
    model: keras.Model, names: Sequence[str]
) -> dict[str, CompiledLoss]:
    """Return the properties of the compiled loss of each output, by output name.

    Args:
        model: A model.
        names: Names of its outputs in order. Sort the names of a dictionary.
    """
    loss = model.loss if model.compiled else None
    if isinstance(loss, Mapping):
        losses = {name: loss.get(name) for name in names}
    elif isinstance(loss, list | tuple) and len(loss) == len(names):
        losses = dict(zip(names, loss, strict=True))
    else:
        losses = dict.fromkeys(names, loss)
    return {name: read_loss(loss) for name, loss in losses.items()}


def read_loss(loss: Any) -> CompiledLoss:
    """Return the properties of a loss, in any form that `compile` takes.

    Args:
        loss: A name, an object, a class or a function; or a list of one loss, or a
            dictionary of one loss by output name. None means no loss. For several
            losses, every property except the name is None.

    Raises:
        ValueError: If Keras has no loss with this name.
    """
    losses = [item for item in keras.tree.flatten(loss) if item is not None]
    if len(losses) != 1:
        return CompiledLoss(f"{len(losses)} losses" if losses else "None")
    (loss,) = losses
    if isinstance(loss, str) and loss.lower() in ANY_CROSSENTROPY:
        return CompiledLoss(loss, from_logits=False, is_classifier=True)
    loss = keras.losses.get(loss)
    name, labels = _name(loss), _look_up(LABELS, loss)
    is_binary, is_classifier = labels == BINARY, None
    if labels is not None:
        is_classifier = labels != NUMBERS
    elif not _is_from_keras(loss):
        is_binary = bool(NAMES[BINARY].search(name))
        if NAMES["classifier"].search(name):
            is_classifier = True
        elif NAMES[NUMBERS].search(name):
            is_classifier = False
    return CompiledLoss(
        name,
        labels,
        _from_logits(loss),
        is_classifier,
        is_binary,
        getattr(loss, "ignore_class", None),
    )


def says_logits(model: keras.Model) -> bool:
    """Return whether the compiled loss expects logits.

    Raises:
        ValueError: If the loss does not define this.
    """
    loss = compiled_loss(model)
    if loss.from_logits is None:
        raise ValueError(
            f"The loss {loss.name!r} of {model.name!r} does not say whether the "
            "outputs are logits or probabilities. Pass from_logits=True or False."
        )
    return loss.from_logits


def check_exclusive(model: keras.Model, outputs: Any) -> None:
    """Check that each example has one class, not several labels.

    Raises:
        ValueError: If the loss is binary for more than one output.
    """
    loss = compiled_loss(model)
    if loss.is_binary and len(outputs.shape) == 2 and outputs.shape[1] > 1:
        raise ValueError(
            f"{model.name!r} has {outputs.shape[1]} outputs and the loss "
            f"{loss.name!r}, so each output is a separate yes or no. Validators need "
            "exactly one class for each example. Use a categorical loss, or a model "
            "with one output."
        )


def _function(loss: Any) -> Any:
    return loss.func if isinstance(loss, functools.partial) else loss


def _name(loss: Any) -> str:
    return getattr(_function(loss), "__name__", type(loss).__name__)


def _look_up(table: dict, loss: Any) -> Any:
    """Return the table's entry for a function, or for the class of an object."""
    kinds = type(loss).__mro__ if isinstance(loss, keras.losses.Loss) else ()
    # The loop replaces a lookup because a callable of the user may have no hash.
    for keras_loss, entry in table.items():
        if keras_loss in kinds or keras_loss is _function(loss):
            return entry
    return None


def _is_from_keras(loss: Any) -> bool:
    """Return whether the loss is a loss of Keras."""
    keras_loss = getattr(keras.losses, _name(loss), None)
    return keras_loss is type(loss) or keras_loss is _function(loss)


def _from_logits(loss: Any) -> bool | None:
    value = _look_up(LOGITS, loss)
    if value is None:
        value = getattr(loss, "from_logits", None)
    if value is None and isinstance(loss, keras.losses.Loss):
        value = loss.get_config().get("from_logits")
    elif value is None:
        value = _default(loss, "from_logits")
    return value if isinstance(value, bool) else None


def _default(function: Any, argument: str) -> Any:
    """Return the default of an argument, or None if it cannot be read."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # the function is written in C
        return None
    return parameters[argument].default if argument in parameters else None
