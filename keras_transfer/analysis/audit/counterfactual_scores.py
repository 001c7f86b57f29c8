"""The scores of a model for texts: probabilities of classes, or one number."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_transfer.analysis.report.predictions import unchanged
from keras_transfer.data.class_names import class_names_of
from keras_transfer.data.examples import BATCH_SIZE
from keras_transfer.data.examples import rows_of
from keras_transfer.losses.compiled_loss import compiled_loss
from keras_transfer.losses.compiled_loss import CompiledLoss

ROW_SUM = 0.02  # largest distance from 1 of a sum of float16 probabilities


class Scores(NamedTuple):
    """The scores of texts.

    Args:
        values: Probabilities `(texts, classes)`, or numbers `(texts, 1)`.
        read_as: "probabilities", "logits" or "numbers": what the outputs were.
        classes: Names of the classes; empty for numbers.
    """

    values: np.ndarray
    read_as: str
    classes: tuple[str, ...]


def scores_of(
    model: keras.Model | Callable, texts: Sequence[str], preprocessor: Any
) -> Scores:
    """Return the scores of texts. The model does not change.

    Args:
        model: A Keras model, or a function from a list of strings to outputs.
        texts: The texts.
        preprocessor: Function from strings to inputs, or None.

    Raises:
        TypeError: If `model` cannot be called, or `preprocessor` is not a function.
        ValueError: If a model needs a preprocessor or has two, or outputs have another
            shape or are not finite.
    """
    if preprocessor is not None and not callable(preprocessor):
        raise TypeError(
            f"preprocessor is a {type(preprocessor).__name__}, not a function or layer "
            "from strings to the inputs of the model."
        )
    if isinstance(model, keras.Model):
        outputs, loss = _predicted(model, texts, preprocessor), compiled_loss(model)
        known = class_names_of(model)
    elif callable(model):
        x = list(texts) if preprocessor is None else preprocessor(list(texts))
        outputs, loss, known = np.asarray(model(x)), CompiledLoss(), None
    else:
        raise TypeError(
            f"model is a {type(model).__name__}. Pass a Keras model, or a function "
            "from a list of strings to outputs, such as classifier.predict."
        )
    return _read(outputs, loss, len(texts), known)


def _predicted(
    model: keras.Model, texts: Sequence[str], preprocessor: Any
) -> np.ndarray:
    own = getattr(model, "preprocessor", None)
    if own is not None and preprocessor is not None:
        raise ValueError(
            f"{model.name!r} has its own preprocessor, so `preprocessor` would be a "
            "second one. Leave it out."
        )
    inputs = keras.tree.flatten(getattr(model, "inputs", None) or [])
    strings = len(inputs) == 1 and inputs[0].dtype == "string"
    if own is None and preprocessor is None and not strings:
        raise ValueError(
            f"{model.name!r} does not read strings. Pass preprocessor=, a function or "
            "layer from strings to its inputs, or instead of the model a function such "
            "as classifier.predict."
        )
    array, found = np.asarray(texts, object), []
    with unchanged(model):
        for start in range(0, len(texts), BATCH_SIZE):
            x = rows_of(array, slice(start, start + BATCH_SIZE))
            if preprocessor is not None:
                x = preprocessor([*texts[start : start + BATCH_SIZE]])
                x = keras.tree.map_structure(keras.ops.convert_to_numpy, x)
            count = min(BATCH_SIZE, len(texts) - start)
            outputs = model.predict_on_batch(x)
            if keras.tree.is_nested(outputs):
                raise ValueError(
                    f"{model.name!r} has several outputs. Pass a model with one."
                )
            # With several replicas, each replica returns outputs for the whole batch.
            found.append(np.asarray(outputs)[:count])
    return np.concatenate(found)


def _read(
    outputs: np.ndarray, loss: CompiledLoss, count: int, known: Sequence | None
) -> Scores:
    array = outputs[:, None] if outputs.ndim == 1 else outputs
    if array.dtype.kind not in "biufV" or array.ndim != 2 or len(array) != count:
        raise ValueError(
            f"The outputs for {count} texts have the shape {outputs.shape} and the "
            f"dtype {outputs.dtype}. They must be numbers with one row for each text."
        )
    array = array.astype("float64")
    wrong = np.count_nonzero(~np.isfinite(array))
    if wrong:
        raise ValueError(
            f"{wrong} of {array.size} outputs are NaN or infinite. Check whether the "
            "training diverged."
        )
    if array.shape[1] == 1:
        return _of_one(array, loss, known)
    if loss.is_binary:
        raise ValueError(
            f"The model has {array.shape[1]} separate labels for each text. Pass a "
            "model, or a function, that returns one of them."
        )
    if loss.is_classifier is False:
        raise ValueError(
            f"The model predicts {array.shape[1]} numbers for each text. Pass a model, "
            "or a function, that returns one of them."
        )
    named = known is not None and len(known) == array.shape[1]
    names = tuple(map(str, known if named else range(array.shape[1])))
    near = np.abs(array.sum(1) - 1).max() < ROW_SUM and array.min() >= -1e-6
    if near and not loss.from_logits:
        return Scores(array, "probabilities", names)
    powers = np.exp(array - array.max(1, keepdims=True))
    return Scores(powers / powers.sum(1, keepdims=True), "logits", names)


def _of_one(array: np.ndarray, loss: CompiledLoss, known: Sequence | None) -> Scores:
    """Return the scores of one output: of class 1 of two classes, or a number."""
    names = tuple(map(str, known)) if known and len(known) == 2 else ("0", "1")
    if loss.from_logits and loss.is_classifier is not False:
        yes = np.exp(-np.logaddexp(0, -array))
        return Scores(np.concatenate([1 - yes, yes], axis=1), "logits", names)
    inside = array.min() >= 0 and array.max() <= 1
    if loss.is_classifier and not inside:
        raise ValueError(
            f"The model returns {array.min():.4g} to {array.max():.4g}, which are not "
            "probabilities. If they are logits, compile it with a loss that has "
            "from_logits=True."
        )
    if loss.is_classifier is False or not inside:
        return Scores(array, "numbers", ())
    return Scores(np.concatenate([1 - array, array], axis=1), "probabilities", names)
