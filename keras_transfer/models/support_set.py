"""Check the support set of one task, which a model adapts to."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transfer.data.examples import map_arrays
from keras_transfer.data.finite_numbers import has_broken
from keras_transfer.data.labels import listed
from keras_transfer.losses.compiled_loss import compiled_loss
from keras_transfer.losses.compiled_loss import SPARSE


def checked_support(learner: keras.Model, x: Any, y: Any) -> tuple[Any, Any]:
    """Return the examples and targets of a support set as tensors, or raise an error.

    Args:
        learner: A compiled `MAML`.
        x: The examples, or without `y`, `(way, shot, ...)`.
        y: The targets, or None.

    Raises:
        ValueError: If they do not fit the model, or have values that are not finite.
    """
    x = map_arrays(np.asarray, x)
    if y is None:
        x, y = _by_class(x)
    y = np.asarray(y)
    check_shape(learner.model, x, batch_axes=1)
    counts = sorted({len(each) for each in keras.tree.flatten(x)})
    if y.ndim == 0 or counts != [len(y)] or not len(y):
        raise ValueError(
            f"x has {counts} examples, but y has the shape {y.shape}. Pass one target "
            "for each example, and at least one example."
        )
    if has_broken(x) or (y.dtype.kind == "f" and not np.isfinite(y).all()):
        raise ValueError(
            "The support set has values that are NaN or infinite, which would make "
            "all weights NaN. Remove these examples, or fill in the values."
        )
    if compiled_loss(learner).labels == SPARSE:
        _check_classes(learner.model, y)
    return keras.tree.map_structure(ops.convert_to_tensor, x), ops.convert_to_tensor(y)


def check_shape(model: keras.Model, x: Any, *, batch_axes: int) -> None:
    """Raise an error if examples have another shape than the inputs of a model.

    A model that is not functional has no known shape.
    """
    if not getattr(model, "inputs", None):
        return
    wanted = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    if isinstance(wanted, dict) and isinstance(x, dict) and set(wanted) <= set(x):
        x = {key: x[key] for key in wanted}
    try:
        keras.tree.assert_same_structure(wanted, x)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The examples are {_described(x)}, but {model.name!r} takes "
            f"{_described(wanted)}. Preprocess them as for `predict`."
        ) from error
    pairs = zip(keras.tree.flatten(wanted), keras.tree.flatten(x), strict=True)
    for spec, given in pairs:
        shapes = tuple(spec.shape[1:]), tuple(given.shape[batch_axes:])
        fits = len(shapes[0]) == len(shapes[1]) and all(
            None in (a, b) or a == b for a, b in zip(*shapes, strict=True)
        )
        if not fits:
            raise ValueError(
                f"An example of the support set has the shape {shapes[1]}, but "
                f"{model.name!r} takes {shapes[0]}. Pass examples of the model's "
                "shape, with the axes of examples (and of episodes) before it."
            )


def check_way(model: keras.Model, way: Any) -> None:
    """Raise an error if an episode has more classes than a model.

    A graph for episodes of several sizes does not know their number.
    """
    units = _units(model)
    if units is not None and isinstance(way, int) and way > max(units, 2):
        raise ValueError(
            f"The episodes have {way} classes, but {model.name!r} has {units} outputs. "
            "Pass a model with one output for each class."
        )


def _units(model: keras.Model) -> int | None:
    outputs = getattr(model, "outputs", None)
    return outputs[0].shape[-1] if outputs else None


def _by_class(x: Any) -> tuple[Any, np.ndarray]:
    """Return the examples of an episode in rows, and their classes."""
    shapes = [each.shape for each in keras.tree.flatten(x)]
    if any(len(shape) < 2 for shape in shapes) or shapes[0][0] < 2:
        raise ValueError(
            f"The support set has the shape {shapes[0]}, but without y it must be "
            "(way, shot, ...), with two or more classes. Pass y, or the support set "
            'of one episode, such as episode["support"][0].'
        )
    way, shot = shapes[0][:2]
    rows = keras.tree.map_structure(lambda a: a.reshape(-1, *a.shape[2:]), x)
    return rows, np.repeat(np.arange(way, dtype="int32"), shot)


def _check_classes(model: keras.Model, y: np.ndarray) -> None:
    classes, units = np.unique(y), _units(model)
    if len(classes) < 2:
        raise ValueError(
            f"The support set has one class, {listed(classes.tolist())}, so there is "
            "nothing to choose. Pass examples of two or more classes."
        )
    if classes.dtype.kind not in "iub" or classes[0] < 0:
        raise ValueError(
            f"The classes of the support set are {listed(classes.tolist())}. The loss "
            "takes whole numbers from 0. Number them in order."
        )
    if units is not None and classes[-1] >= units:
        raise ValueError(
            f"The support set has the class {classes[-1]}, but {model.name!r} has "
            f"{units} outputs, for the classes 0 to {units - 1}."
        )


def _described(x: Any) -> str:
    return f"a dictionary of {sorted(x)}" if isinstance(x, dict) else "one array"
