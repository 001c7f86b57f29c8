"""What fine_tune is given, checked before anything is changed."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.callbacks.gradual_unfreezing import GradualUnfreezing
from keras_transfer.data.examples import fit_arguments
from keras_transfer.data.labels import read_labels
from keras_transfer.fine_tuning.check_labels import check_labels

SETTINGS = (
    "batch_size",
    "callbacks",
    "class_weight",
    "validation_freq",
    "verbose",
)
REFUSED = (keras.callbacks.BackupAndRestore, GradualUnfreezing)


def check_model(model: keras.Model) -> None:
    """Check that a model is built, compiled, and was not trained.

    Raises:
        TypeError: If it is no model.
        ValueError: If it is not ready.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"model={model!r} is not a Keras model.")
    if not model.compiled or model.optimizer is None:
        raise ValueError(
            f"The model {model.name!r} is not compiled. Call model.compile(optimizer, "
            "loss) first; the loss tells the task."
        )
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so it has no weights yet. Call it "
            "on one batch first, or give it an Input."
        )
    optimizer = _keras.inner_optimizer(model.optimizer)
    if _keras.value(optimizer.iterations) > 0:
        raise ValueError(
            f"The {type(optimizer).__name__} of the model has made updates already, "
            "so its moments and its schedule are those of an earlier training. Call "
            "model.compile() with a new one."
        )


def check_settings(settings: dict, data: Any) -> dict:
    """Return all that is passed on to `fit`, checked.

    Raises:
        ValueError: If a setting is unknown or does not go with the others.
    """
    unknown = sorted(set(settings) - set(SETTINGS))
    if unknown:
        raise ValueError(
            f"fine_tune passes {SETTINGS} on to fit, and not {unknown}: it decides on "
            "epochs, order and steps itself. Sample weights go into `data`."
        )
    callbacks = keras.tree.flatten(settings.get("callbacks") or [])
    for each in callbacks:
        if isinstance(each, REFUSED):
            raise ValueError(
                f"fine_tune has its own way of what {type(each).__name__} does: give "
                "`directory=` to go on after a kill, and `strategy=` for the phases."
            )
    spec = getattr(data, "element_spec", data)
    weighted = isinstance(spec, tuple) and len(spec) == 3
    if weighted and settings.get("class_weight"):
        raise ValueError(
            "There are a class_weight and sample weights in `data`, and Keras takes "
            "one of them. Multiply the sample weights by those of the classes."
        )
    settings = {"batch_size": None, "verbose": 1} | settings | {"callbacks": callbacks}
    if settings["verbose"] == "auto":  # what Keras makes of it in a terminal
        settings["verbose"] = 1
    return settings


def without_none(data: Any) -> Any:
    """Return data without the None that stands for no sample weights."""
    if isinstance(data, tuple) and len(data) == 3 and data[2] is None:
        return data[:2]
    return data


def checked_labels(
    model: keras.Model, data: Any, validation_data: Any, batch_size: int | None
) -> tuple[Any, Any]:
    """Return all labels of both data, checked against the loss; None where no data.

    Raises:
        TypeError: If data are of an unknown kind.
        ValueError: If data are empty or endless, or their labels cannot be learnt.
    """
    fit_arguments(model, data, 1, batch_size)
    labels = read_labels(data)
    loss = _keras.compile_arguments(model)["loss"]
    output = getattr(model, "output_shape", None)  # of a subclassed model unknown
    if not isinstance(output, tuple) or any(isinstance(x, tuple) for x in output):
        output = None
    check_labels(loss, output, labels)
    if validation_data is None:
        return labels, None
    try:
        fit_arguments(model, validation_data, 1, None)
        held_out = read_labels(validation_data)
        check_labels(loss, output, held_out, learnt=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"In validation_data: {error}") from error
    return labels, held_out


def all_classes(weights: dict | None, labels: Any) -> dict | None:
    """Return a `class_weight` with 1 for each class that it does not name.

    Keras adds these for arrays, but not for a tf.data.Dataset.
    """
    if not weights or keras.tree.is_nested(labels):
        return weights
    one_hot = labels.ndim > 1 and labels.shape[-1] > 1
    highest = labels.shape[-1] - 1 if one_hot else int(np.round(labels.max()))
    return dict.fromkeys(range(highest + 1), 1.0) | weights
