"""The strength of a method: checked, read in a step, kept in a config."""

from __future__ import annotations

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer.layers.gradient_reversal import check_strength
from keras_transfer.layers.gradient_reversal import is_schedule
from keras_transfer.layers.gradient_reversal import Schedule

Strength = float | keras.Variable | Schedule | None


def take_strength(strength: Strength | dict, total_steps: int | None) -> Strength:
    """Return what was passed as a strength, or stands in a config, once checked.

    Raises:
        TypeError: If it is of another kind.
        ValueError: If it is out of range, or `total_steps` has no effect on it.
    """
    if isinstance(strength, dict):  # of strength_config
        strength = keras.Variable(strength["variable"], trainable=False)
    if strength is None:
        return None
    check_strength(strength)
    if total_steps is not None:
        raise ValueError(
            f"total_steps={total_steps} has no effect on the strength {strength!r}: "
            "only a strength of None rises over them."
        )
    if isinstance(strength, keras.Variable):
        # Or it would learn: to be 0, since that lowers the loss.
        strength.trainable = False
    return strength


def strength_at(strength: Strength, optimizer: keras.Optimizer | None) -> object:
    """Return a strength that is given as a float32 scalar of the present step."""
    if is_schedule(strength):
        strength = strength(0 if optimizer is None else optimizer.iterations)
    return ops.cast(ops.convert_to_tensor(strength), "float32")


def strength_config(strength: Strength) -> float | dict | None:
    """Return a strength as JSON can hold it."""
    if isinstance(strength, keras.Variable):
        return {"variable": float(_keras.value(strength))}
    if is_schedule(strength):
        return keras.saving.serialize_keras_object(strength)
    return strength
