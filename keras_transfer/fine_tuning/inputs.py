"""The arguments of fine_tune, checked before anything changes."""

from __future__ import annotations

from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.callbacks.gradual_unfreezing import GradualUnfreezing
from keras_transfer.data.class_names import class_names_of
from keras_transfer.data.examples import fit_arguments
from keras_transfer.data.finite_numbers import check_numbers
from keras_transfer.data.labels import read_labels
from keras_transfer.data.made_labels import makes_labels
from keras_transfer.data.made_labels import without_labels
from keras_transfer.data.named_labels import choose_names
from keras_transfer.data.named_labels import is_named
from keras_transfer.data.named_labels import number_names
from keras_transfer.data.named_labels import with_numbers
from keras_transfer.fine_tuning.check_labels import check_labels
from keras_transfer.losses.compiled_loss import BINARY
from keras_transfer.losses.compiled_loss import CompiledLoss
from keras_transfer.losses.compiled_loss import ONE_HOT
from keras_transfer.losses.compiled_loss import read_loss

REFUSED = (keras.callbacks.BackupAndRestore, GradualUnfreezing)


def check_settings(settings: dict, data: Any) -> dict:
    """Return the checked settings of `fit`.

    Raises:
        ValueError: If a setting contradicts another setting or has an unknown value.
    """
    callbacks = keras.tree.flatten(settings["callbacks"] or [])
    for callback in callbacks:
        if isinstance(callback, REFUSED):
            raise ValueError(
                f"{type(callback).__name__} cannot be used in fine_tune, which does "
                "the same itself. Pass `directory=` to continue an interrupted run, "
                "or `strategy=` to choose the phases."
            )
    spec = getattr(data, "element_spec", data)
    weighted = isinstance(spec, tuple) and len(spec) == 3
    if weighted and settings["class_weight"] is not None:
        raise ValueError(
            "You passed class_weight and sample weights in `data`, but Keras accepts "
            "only one of the two. Multiply the sample weights by the class weights."
        )
    verbose = settings["verbose"]
    if verbose == "auto":  # Keras uses 1 in a terminal
        verbose = 1
    return settings | {"callbacks": callbacks, "verbose": verbose}


def without_none(data: Any) -> Any:
    """Return data without sample weights if these are None."""
    if isinstance(data, tuple) and len(data) == 3 and data[2] is None:
        return data[:2]
    return data


class Inputs(NamedTuple):
    """Data with labels that are numbers, all labels, and the class names.

    `held_out` are the labels of `validation_data`. Both are None without validation
    data. If a preprocessor creates the labels, `made` is True, and only the number of
    `labels` is valid.
    """

    data: Any
    validation_data: Any
    labels: Any
    held_out: Any
    class_names: tuple[str, ...] | None = None
    made: bool = False


def checked_inputs(
    model: keras.Model, data: Any, validation_data: Any, batch_size: int | None
) -> Inputs:
    """Return the data of a run, with labels checked against the loss.

    Class names get numbers in alphabetical order, unless the model has other numbers.

    Raises:
        TypeError: If the type of the data is unknown.
        ValueError: If data are empty or endless, or if the model cannot train on their
            labels.
    """
    if makes_labels(model, data):
        return _made(model, data, validation_data, batch_size)
    fit_arguments(model, data, 1, batch_size)
    labels = read_labels(data)
    loss, output = _keras.compile_arguments(model)["loss"], output_of(model)
    said = read_loss(loss)
    classes = _num_classes(said, output)
    names = getattr(data, "class_names", None) or class_names_of(model)
    named = is_named(labels) and said.is_classifier is True
    if named:
        names = choose_names(labels, classes, names)
        data = with_numbers(data, names, one_hot=said.labels == ONE_HOT)
        labels = read_labels(data)
    elif names is not None and len(names) != classes:
        names = None
    check_labels(loss, output, labels)
    check_numbers(model, data)
    names = None if names is None else tuple(names)
    if validation_data is None:
        return Inputs(data, None, labels, None, names)
    try:
        fit_arguments(model, validation_data, 1, None)
        held_out = read_labels(validation_data)
        if named and is_named(held_out):
            number_names(held_out, names)
            one_hot = said.labels == ONE_HOT
            validation_data = with_numbers(validation_data, names, one_hot=one_hot)
            held_out = read_labels(validation_data)
        check_labels(loss, output, held_out, learned=False)
        check_numbers(model, validation_data)
    except (TypeError, ValueError) as error:
        raise type(error)(f"In validation_data: {error}") from error
    return Inputs(data, validation_data, labels, held_out, names)


def _made(
    model: keras.Model, data: Any, validation_data: Any, batch_size: int | None
) -> Inputs:
    """Return the inputs if a preprocessor creates the labels."""
    data, count = without_labels(data)
    fit_arguments(model, data, 1, batch_size)
    if validation_data is None:
        return Inputs(data, None, np.zeros(count), None, made=True)
    if not makes_labels(model, validation_data):
        raise ValueError(
            "`data` has no labels, because the preprocessor of the model creates them, "
            "so `validation_data` must have only texts too. Remove its labels."
        )
    held_out, held_out_count = without_labels(validation_data)
    return Inputs(data, held_out, np.zeros(count), np.zeros(held_out_count), made=True)


def output_of(model: keras.Model) -> tuple | None:
    """Return the shape of the single output of a model, or None if it is unknown."""
    output = getattr(model, "output_shape", None)  # unknown for a subclassed model
    if not isinstance(output, tuple) or any(isinstance(x, tuple) for x in output):
        return None
    return output


def _num_classes(said: CompiledLoss, output: tuple | None) -> int | None:
    if output is None:
        return None
    return 2 if said.labels == BINARY and output[-1] == 1 else output[-1]
