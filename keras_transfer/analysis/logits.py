"""What the compiled loss says of the outputs of a model."""

from __future__ import annotations

import inspect
from typing import Any

import keras


def find_logits(model: keras.Model) -> bool | None:
    """Return whether the outputs are logits; None if the compiled loss does not say."""
    loss = _loss(model)
    found = None
    if isinstance(loss, keras.losses.Loss):
        found = loss.get_config().get("from_logits")
    elif callable(loss):
        said = inspect.signature(loss).parameters.get("from_logits")
        found = None if said is None else said.default
    return found if isinstance(found, bool) else None


def says_logits(model: keras.Model) -> bool:
    """Return whether the outputs are logits, as the compiled loss says.

    Raises:
        ValueError: If it does not say.
    """
    found = find_logits(model)
    if found is None:
        raise ValueError(
            f"The loss {_name(_loss(model))!r} of {model.name!r} does not say whether "
            "the outputs are logits or probabilities. Say it: from_logits=True or "
            "False."
        )
    return found


def check_exclusive(model: keras.Model, outputs: Any) -> None:
    """Check that an example has one class of several, and not several labels.

    Raises:
        ValueError: If the loss is binary for more than one output.
    """
    name = _name(_loss(model))
    if "binary" in name.lower() and len(outputs.shape) == 2 and outputs.shape[1] > 1:
        raise ValueError(
            f"{model.name!r} has {outputs.shape[1]} outputs and the loss {name!r}, so "
            "each tells two classes apart by itself. Validators read one class of "
            "several an example: use a categorical loss, or one output."
        )


def _loss(model: keras.Model) -> Any:
    """Return the compiled loss as an object or function; the only one of several."""
    loss = model.loss
    if isinstance(loss, list | tuple | dict) and len(loss) == 1:
        (loss,) = loss.values() if isinstance(loss, dict) else loss
    return keras.losses.get(loss) if isinstance(loss, str) else loss


def _name(loss: Any) -> str:
    return getattr(loss, "__name__", type(loss).__name__)
