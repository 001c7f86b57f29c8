"""Class names as outputs of a signature, in addition to the logits."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_transfer.data.class_names import class_names_of

UNKNOWN = "unknown"  # of a model with an `unknown_threshold`


def with_labels(labels: Any, model: keras.Model) -> Callable:
    """Return a function that adds `label` and `label_id` to a dict of outputs.

    Args:
        labels: As in `kt.export_serving`.
        model: The model.

    Raises:
        ValueError: If the labels are not at least two different names.
    """
    if labels is False:
        return dict
    if labels is None:
        known = class_names_of(model)
        if known is None:
            return dict
        lowest = getattr(model, "unknown_threshold", None)
        return lambda outputs: _known(_where_they_fit(outputs, known), lowest)
    if _is_names(labels):
        names = _checked(labels, "labels")
        return lambda outputs: {**outputs, **_of_one(outputs, names)}
    names = {
        key: _checked(each, f"labels[{key!r}]")
        for key, each in _by_output(labels, model).items()
        if each is not None
    }
    return lambda outputs: {**outputs, **_of_several(outputs, names)}


def _by_output(labels: Any, model: keras.Model) -> dict[str, Any]:
    """Return labels by the names of the outputs in a signature."""
    if isinstance(labels, Mapping):
        output = getattr(model, "output", None) if model.inputs else None
        if not isinstance(output, list | tuple):
            return dict(labels)
        # Keras names the outputs in a list by their layers, for example in `compile`.
        layers = getattr(model, "output_names", [])
        numbered = {name: f"outputs_{i}" for i, name in enumerate(layers)}
        return {numbered.get(key, key): each for key, each in labels.items()}
    if isinstance(labels, list | tuple) and len(labels) == 1:
        return {"outputs": labels[0]}
    if isinstance(labels, list | tuple):
        return {f"outputs_{i}": each for i, each in enumerate(labels)}
    raise ValueError(
        f"labels is {labels!r}. Pass a list of the class names in the order of the "
        "logits. For a model with several outputs, pass a list or a dictionary of "
        "such lists, with None for an output without classes."
    )


def _where_they_fit(
    outputs: dict[str, tf.Tensor], names: Sequence[str]
) -> dict[str, tf.Tensor]:
    """Return outputs with the class names of the data, if these fit the outputs."""
    fit = len(outputs) == 1 and next(iter(outputs.values())).shape[-1] == len(names)
    fit = fit and len(names) > 1 and not {"label", "label_id"} & set(outputs)
    return {**outputs, **_of_one(outputs, list(names))} if fit else dict(outputs)


def _known(outputs: dict[str, tf.Tensor], lowest: float | None) -> dict[str, tf.Tensor]:
    """Return outputs where scores below the threshold of a model have no class."""
    if lowest is None or "label" not in outputs:
        return outputs
    known = tf.reduce_max(outputs["outputs"], -1) >= lowest
    label = tf.where(known, outputs["label"], UNKNOWN)
    return {
        **outputs,
        "label": label,
        "label_id": tf.where(known, outputs["label_id"], -1),
    }


def _of_one(outputs: dict[str, tf.Tensor], names: list[str]) -> dict[str, tf.Tensor]:
    if len(outputs) != 1:
        shapes = {name: tuple(each.shape) for name, each in outputs.items()}
        raise ValueError(
            f"labels is one list, but the model has {len(outputs)} outputs, {shapes}. "
            "Pass a dictionary of labels by the name of the output, such as "
            f"{{{next(iter(shapes))!r}: labels}}."
        )
    ((name, scores),) = outputs.items()
    return _named(name, scores, names, "", outputs)


def _of_several(
    outputs: dict[str, tf.Tensor], labels: Mapping[str, list[str]]
) -> dict[str, tf.Tensor]:
    unknown = sorted(set(labels) - set(outputs))
    if unknown:
        raise ValueError(
            f"labels has the keys {unknown}, but the outputs of the model are "
            f"{sorted(outputs)}. Use these names as keys."
        )
    found = {}
    for name, names in labels.items():
        found |= _named(name, outputs[name], names, f"{name}_", outputs)
    return found


def _named(
    name: str,
    scores: tf.Tensor,
    labels: list[str],
    prefix: str,
    outputs: Mapping[str, tf.Tensor],
) -> dict[str, tf.Tensor]:
    shape = tuple(scores.shape)
    if len(shape) < 2 or shape[-1] != len(labels):
        hint = ""
        if len(shape) >= 2 and shape[-1] == 1:
            hint = " A label cannot be chosen from one logit: train two logits."
        raise ValueError(
            f"labels has {len(labels)} names, but the model's output {name!r} has the "
            f"shape {shape}. The shape must be (batch, {len(labels)}), or (batch, ..., "
            f"{len(labels)}) for a model with classes for each token or pixel.{hint}"
        )
    taken = {f"{prefix}label", f"{prefix}label_id"} & set(outputs)
    if taken:
        raise ValueError(
            f"The model already has outputs named {sorted(taken)}, which labels "
            "would add. Rename these outputs of the model, or pass labels=False."
        )
    index = tf.argmax(scores, axis=-1)
    return {
        f"{prefix}label": tf.gather(tf.constant(labels), index),
        f"{prefix}label_id": index,
    }


def _is_names(labels: Any) -> bool:
    """Return whether `labels` are names for one output, not for several outputs."""
    if isinstance(labels, str):
        return True
    if not isinstance(labels, Sequence) and not hasattr(labels, "tolist"):
        return False
    return not any(
        each is None or (isinstance(each, Sequence) and not isinstance(each, str))
        for each in labels
    )


def _checked(labels: Any, what: str) -> list[str]:
    names = [labels] if isinstance(labels, str) else list(labels)
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(
            f"{what} is {labels!r}. Pass the name of each class once, at least two "
            "names, in the order of the logits."
        )
    if not all(isinstance(each, str) for each in names):
        raise ValueError(f"{what} is {labels!r}. Each name must be a string.")
    return names
