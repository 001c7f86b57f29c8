"""What the compiled loss says of the labels and outputs of a model."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

SPARSE = "sparse"  # one class of several, by its number
ONE_HOT = "one-hot"  # one class of several, as a row with a column for each
BINARY = "binary"  # each output is yes or no by itself
NUMBERS = "numbers"

# The labels that a loss of Keras, and its subclasses, take. A loss that is not here
# takes several kinds (Hinge: -1 and 1, or 0 and 1), or labels that are none of these.
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
# Losses of Keras that have no argument `from_logits`, since they read one of the two.
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
# Keras chooses between its three crossentropies by the first batch.
ANY_CROSSENTROPY = ("crossentropy", "ce")
# A loss of the user's own is known by its name, if at all.
NAMES = {
    "classifier": re.compile("cross_?entropy", re.IGNORECASE),
    NUMBERS: re.compile("squared|absolute|huber|log_?cosh|poisson", re.IGNORECASE),
    BINARY: re.compile("binary", re.IGNORECASE),
}


@dataclass(frozen=True)
class CompiledLoss:
    """What a loss says; None where it does not say.

    Args:
        name: Name of the loss, for messages.
        labels: "sparse", "one-hot", "binary" or "numbers", for a loss of Keras.
        from_logits: Whether the outputs are logits; if False, probabilities.
        is_classifier: Whether the outputs are classes; if False, numbers.
        is_binary: Whether each output is yes or no by itself.
        ignore_class: The label of examples that do not count.
    """

    name: str = "None"
    labels: str | None = None
    from_logits: bool | None = None
    is_classifier: bool | None = None
    is_binary: bool = False
    ignore_class: int | None = None


def compiled_loss(model: keras.Model) -> CompiledLoss:
    """Return what the loss that a model was compiled with says of its one output."""
    return read_loss(model.loss if model.compiled else None)


def compiled_losses(
    model: keras.Model, names: Sequence[str]
) -> dict[str, CompiledLoss]:
    """Return what the compiled loss says of each output, by the name of the output.

    Args:
        model: A model.
        names: Names of its outputs, in their order; those of a dictionary sorted.
    """
    loss = model.loss if model.compiled else None
    if isinstance(loss, Mapping):
        given = {name: loss.get(name) for name in names}
    elif isinstance(loss, list | tuple) and len(loss) == len(names):
        given = dict(zip(names, loss, strict=True))
    else:
        given = dict.fromkeys(names, loss)
    return {name: read_loss(each) for name, each in given.items()}


def read_loss(loss: Any) -> CompiledLoss:
    """Return what a loss says, in any form that `compile` takes.

    Args:
        loss: A name, an object, a class, a function, or a list or dictionary of one of
            these, by the name of the output. Of several losses nothing is said; None
            stands for an output that has none.

    Raises:
        ValueError: If Keras does not know a loss of that name.
    """
    given = [each for each in keras.tree.flatten(loss) if each is not None]
    if len(given) != 1:
        return CompiledLoss(f"{len(given)} losses" if given else "None")
    (loss,) = given
    if isinstance(loss, str) and loss.lower() in ANY_CROSSENTROPY:
        return CompiledLoss(loss, from_logits=False, is_classifier=True)
    loss = keras.losses.get(loss)
    name, labels = _name(loss), _look_up(LABELS, loss)
    is_binary, is_classifier = labels == BINARY, None
    if labels is not None:
        is_classifier = labels != NUMBERS
    elif not _is_of_keras(loss):
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
    """Return whether the outputs are logits, as the compiled loss says.

    Raises:
        ValueError: If it does not say.
    """
    loss = compiled_loss(model)
    if loss.from_logits is None:
        raise ValueError(
            f"The loss {loss.name!r} of {model.name!r} does not say whether the "
            "outputs are logits or probabilities. Say it: from_logits=True or False."
        )
    return loss.from_logits


def check_exclusive(model: keras.Model, outputs: Any) -> None:
    """Check that an example has one class of several, and not several labels.

    Raises:
        ValueError: If the loss is binary for more than one output.
    """
    loss = compiled_loss(model)
    if loss.is_binary and len(outputs.shape) == 2 and outputs.shape[1] > 1:
        raise ValueError(
            f"{model.name!r} has {outputs.shape[1]} outputs and the loss "
            f"{loss.name!r}, so each distinguishes two classes by itself. Validators "
            "read one class of several an example: use a categorical loss, or one "
            "output."
        )


def _function(loss: Any) -> Any:
    return loss.func if isinstance(loss, functools.partial) else loss


def _name(loss: Any) -> str:
    return getattr(_function(loss), "__name__", type(loss).__name__)


def _look_up(table: dict, loss: Any) -> Any:
    """Return what a table says of a function, or of the class of an object."""
    kinds = type(loss).__mro__ if isinstance(loss, keras.losses.Loss) else ()
    # A callable of the user's own need not have a hash.
    for known, said in table.items():
        if known in kinds or known is _function(loss):
            return said
    return None


def _is_of_keras(loss: Any) -> bool:
    """Return whether Keras has the loss, so that its name tells no more."""
    known = getattr(keras.losses, _name(loss), None)
    return known is type(loss) or known is _function(loss)


def _from_logits(loss: Any) -> bool | None:
    found = _look_up(LOGITS, loss)
    if found is None:
        found = getattr(loss, "from_logits", None)
    if found is None and isinstance(loss, keras.losses.Loss):
        found = loss.get_config().get("from_logits")
    elif found is None:
        found = _default(loss, "from_logits")
    return found if isinstance(found, bool) else None


def _default(function: Any, argument: str) -> Any:
    """Return the default of an argument, or None where there is none to be read."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # written in C
        return None
    return parameters[argument].default if argument in parameters else None
