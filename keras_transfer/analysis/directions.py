"""Find out whether a larger value of a metric is better, or a smaller one."""

from __future__ import annotations

import keras

from keras_transfer import _keras

# Words in the name of a value that show which direction is better.
LARGER_IS_BETTER = ("acc", "auc", "precision", "recall", "f1")
SMALLER_IS_BETTER = ("loss", "error", "perplexity")


def larger_is_better(name: str) -> bool | None:
    """Return whether a larger value is better, or None if the name does not show it."""
    if any(word in name.lower() for word in SMALLER_IS_BETTER):
        return False
    if any(word in name.lower() for word in LARGER_IS_BETTER):
        return True
    return None


def direction_in(model: keras.Model, name: str) -> bool | None:
    """Return whether a larger value in the logs of `model` is better.

    Args:
        model: A model.
        name: Name of the value in the logs, such as "val_accuracy". With several
            outputs, it starts with the name of the output.

    Returns:
        The direction that the compiled Keras metric has, or else the direction that the
        name shows, or else None.
    """
    name = name.removeprefix("val_")
    for metric, larger in _keras.metric_directions(model).items():
        if name == metric or name.endswith(f"_{metric}"):
            return larger
    return larger_is_better(name)
