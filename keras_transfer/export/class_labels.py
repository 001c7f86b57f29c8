"""Class labels as outputs: the name of the largest logit."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence

import tensorflow as tf


def with_labels(labels: Sequence[str]) -> Callable:
    """Return a function that adds `label` and `label_id` to outputs by name.

    Args:
        labels: Names of the classes, in the order of the logits.

    Raises:
        ValueError: If they are not different names, or fewer than two.
    """
    names = [labels] if isinstance(labels, str) else list(labels)
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(
            f"labels is {labels!r}. Give the name of each class once, two or more, in "
            "the order of the model's outputs."
        )
    if not all(isinstance(each, str) for each in names):
        raise ValueError(f"labels is {labels!r}. Each is a string.")

    def finish(outputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        scores = _scores(outputs, names)
        index = tf.argmax(scores, axis=-1)
        return {**outputs, "label": tf.gather(tf.constant(names), index)} | {
            "label_id": index
        }

    return finish


def _scores(outputs: dict[str, tf.Tensor], labels: list[str]) -> tf.Tensor:
    shapes = {name: tuple(each.shape) for name, each in outputs.items()}
    if len(outputs) != 1:
        raise ValueError(
            f"labels was given, but the model has {len(outputs)} outputs, {shapes}. "
            "Export a keras.Model that ends in the logits."
        )
    (scores,) = outputs.values()
    if len(scores.shape) != 2 or scores.shape[-1] != len(labels):
        hint = ""
        if len(scores.shape) == 2 and scores.shape[-1] == 1:
            hint = " Of one column the largest says nothing: train two logits."
        raise ValueError(
            f"labels has {len(labels)} names, but the model's outputs are {shapes}. "
            f"They must be (batch, {len(labels)}).{hint}"
        )
    return scores
