"""resume: reload a partly frozen model with the complete state of its optimizer."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import warnings
import zipfile
from collections.abc import Iterator
from collections.abc import Mapping

import keras

from keras_transfer import _keras
from keras_transfer.adapters.in_place.layer_state import base_of
from keras_transfer.backbones.recompile import recompile
from keras_transfer.backbones.training_flags import train_only
from keras_transfer.optimizers.discriminative import Discriminative
from keras_transfer.optimizers.rate_table import RateTable
from keras_transfer.saving.optimizer_slots import find_trained
from keras_transfer.saving.optimizer_slots import has_shapes
from keras_transfer.saving.optimizer_slots import saved_shapes


def resume(
    path: str | os.PathLike,
    *,
    custom_objects: Mapping | None = None,
    safe_mode: bool = True,
) -> keras.Model:
    """Load a compiled model from a `.keras` file, with the full optimizer state.

    `keras.saving.load_model` builds the optimizer with the trainable variables of the
    reloaded model. During gradual unfreezing these are fewer than the variables that
    the optimizer has slots for, and keras-hub backbones do not save which layers are
    frozen. In both cases Keras drops the moments and the iteration count. This function
    builds the optimizer with the same variables as before saving, loads its state, and
    restores the trainable flags. Continue training with `fit(initial_epoch=...)` and
    the same callbacks. For distributed training, call this function inside
    `strategy.scope()`.

    Args:
        path: Path of a `.keras` file of a compiled model. If the optimizer comes from
            `discriminative` or `GradualUnfreezing`, the file lists the variables of its
            slots. For other optimizers, the slots are assigned to the trainable
            variables of the reloaded model. If these do not fit, the slots are assigned
            by their shapes, if only one choice fits.
        custom_objects: Dict of name to class or function, as in
            `keras.saving.load_model`. Defaults to None.
        safe_mode: Whether to refuse lambda functions, as in `keras.saving.load_model`.
            Defaults to True.

    Returns:
        The compiled model.

    Raises:
        ValueError: If the file is not a `.keras` file or does not contain a compiled
            model, or if the variables of the optimizer's slots cannot be determined.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)]
        )
        model.compile("adam", "mse")
        unfreezing = kt.callbacks.GradualUnfreezing(model)
        x, y = np.ones((8, 4)), np.ones((8, 2))
        model.fit(x, y, epochs=1, callbacks=[unfreezing], verbose=0)
        model.save("half_way.keras")
        model = kt.resume("half_way.keras")
        callbacks = [kt.callbacks.GradualUnfreezing(model)]
        model.fit(x, y, initial_epoch=1, epochs=2, callbacks=callbacks, verbose=0)
        ```

    Reference:
        Keras, `keras.saving.load_model`.
    """
    path = pathlib.Path(path)
    compiled = _compile_config(path)
    with keras.saving.CustomObjectScope(dict(custom_objects or {})):
        optimizer = keras.saving.deserialize_keras_object(compiled["optimizer"])
        inner = _keras.inner_optimizer(optimizer)
        with warnings.catch_warnings():
            # A new keras-hub Task compiles itself; its optimizer is replaced below.
            warnings.filterwarnings("ignore", message="Skipping variable loading")
            model = keras.saving.load_model(path, compile=False, safe_mode=safe_mode)
        if not isinstance(inner, Discriminative):
            return _with_slots(model, path, compiled)
        union, trained = _rows_to_variables(model, inner.rate_table)
        train_only(model, union)
        recompile(model, base_of(model), compiled)
        if not model.optimizer.built:
            model.optimizer.build(union)
        with _complete(path):
            model.load_weights(path)
    train_only(model, trained)
    return model


def _with_slots(model: keras.Model, path: pathlib.Path, compiled: dict) -> keras.Model:
    """Compile a model with an optimizer of Keras, and load its saved state."""
    recompile(model, base_of(model), compiled)
    shapes = saved_shapes(path)
    if shapes and not has_shapes(model.optimizer, shapes):
        optimizer = keras.saving.deserialize_keras_object(compiled["optimizer"])
        trained = find_trained(model, _keras.inner_optimizer(optimizer), shapes)
        if trained is not None:
            train_only(model, trained)
            recompile(model, base_of(model), compiled)
    with _complete(path):
        model.load_weights(path)
    return model


def _compile_config(path: pathlib.Path) -> dict:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"{str(path)!r} {what}. Pass the path of a `.keras` file.")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path.name!r} is not a `.keras` file. Legacy `.h5` files mix up the "
            "weights of partly frozen layers, and weight files contain no optimizer "
            "config. Save the model with model.save('name.keras')."
        )
    with zipfile.ZipFile(path) as archive:
        if "config.json" not in archive.namelist():
            raise ValueError(
                f"{path.name!r} contains no config.json, so it is not a Keras model. "
                "Save the model with model.save('name.keras')."
            )
        compiled = json.loads(archive.read("config.json")).get("compile_config")
    if not compiled:
        raise ValueError(
            f"{path.name!r} contains a model that was not compiled, so it has no "
            "optimizer to restore. Load it with keras.saving.load_model and compile it."
        )
    return compiled


@contextlib.contextmanager
def _complete(path: pathlib.Path) -> Iterator[None]:
    """Raise an error if Keras warns that it drops the state of the optimizer."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    dropped = [str(w.message) for w in caught if "Skipping variable" in str(w.message)]
    if dropped:
        raise ValueError(
            f"The state of the optimizer in {path.name!r} cannot be restored. "
            f"{dropped[0]}There are three possible reasons. The model was trained with "
            "the policy mixed_float16: set this policy before you resume. Or the model "
            "was saved before it was trained. Or some layers were frozen: a backbone "
            "of keras-hub does not save this, and without an optimizer of "
            "keras_transfer.optimizers.discriminative the file does not list the "
            "variables of the slots. In the last case, load the model with model = "
            "keras.saving.load_model(path, compile=False), freeze the same layers, "
            "compile it with the same optimizer, and call "
            "model.optimizer.build(model.trainable_variables) and "
            "model.load_weights(path)."
        )
    for warning in caught:
        warnings.warn_explicit(
            warning.message, warning.category, warning.filename, warning.lineno
        )


def _rows_to_variables(
    model: keras.Model, table: RateTable
) -> tuple[list[keras.Variable], list[keras.Variable]]:
    """Return the variables with slots, and the variables that were trainable."""
    weights = model.weights
    wrong = [
        row.name
        for row in table.rows
        if row.weight >= len(weights) or not row.matches(weights[row.weight])
    ]
    if wrong:
        raise ValueError(
            f"{len(wrong)} variables of the optimizer do not match the weights of the "
            f"reloaded model: {wrong[:5]}. The code that builds the model has probably "
            "changed since it was saved. Build the model as before."
        )
    union = [weights[row.weight] for row in table.rows]
    trained = [weights[row.weight] for row in table.rows if row.trainable]
    return union, trained
