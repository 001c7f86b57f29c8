"""The newest version of a served model, and its outputs."""

from __future__ import annotations

import pathlib

import keras
import numpy as np

from keras_transfer.export.served_model import ServedModel
from keras_transfer.retuning.errors import outputs_of


def newest(directory: pathlib.Path) -> pathlib.Path | None:
    """Return the folder of the newest version, or None if there is no version.

    Raises:
        ValueError: If the directory is a file, or the newest version has no model.
    """
    if not directory.exists():
        return None
    if not directory.is_dir():
        raise ValueError(f"directory={str(directory)!r} is a file. Pass a folder.")
    # As TensorFlow Serving, which reads "007" as version 7.
    folders = [x for x in directory.iterdir() if x.name.isdecimal() and x.is_dir()]
    folders = [each for each in folders if each.name.isascii()]
    newest = max(folders, key=lambda each: int(each.name), default=None)
    if newest is not None and not (newest / "saved_model.pb").is_file():
        raise ValueError(
            f"The newest version, {str(newest)!r}, has no saved_model.pb, so there is "
            "no model to compare with. Delete this folder, or pass another directory."
        )
    return newest


def served_outputs(
    model: keras.Model, served: pathlib.Path | None, test: tuple
) -> np.ndarray:
    """Return the outputs of the newest version, or of the model if there is none."""
    own = outputs_of(model, test)
    if served is None:
        return own
    # Of all models, only a Task of keras-hub trains on what it gets from a client.
    prepared = getattr(model, "preprocessor", None) is None
    try:
        outputs = ServedModel(served, prepared=prepared)(test[0])
    except ValueError as error:
        raise ValueError(
            f"The version in {str(served)!r} does not take the inputs of these data: "
            f"{error} Pass the folder of this model, or a new one."
        ) from error
    found = outputs.get("outputs")
    if found is None or found.shape != own.shape:
        shape = None if found is None else found.shape[1:]
        raise ValueError(
            f"The version in {str(served)!r} is of another model: its outputs "
            f"{sorted(outputs)} have the shape {shape}, and those of this model "
            f"{own.shape[1:]}. Pass the folder of this model, or a new one."
        )
    return found
