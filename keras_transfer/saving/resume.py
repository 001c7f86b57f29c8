"""Reload a partly frozen model with the whole state of its optimizer."""

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
from keras_transfer.adapters.in_place.recompile import recompile
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
    """Return the compiled model of a `.keras` file, with all slots of its optimizer.

    `keras.saving.load_model` builds the optimizer over what the reloaded model
    trains. In the middle of gradual unfreezing that is less than the optimizer has
    slots for, and keras-hub backbones forget what was frozen; Keras then drops the
    moments and the count of updates. This function builds the optimizer over the
    variables it was saved with, loads its state, and sets the trainable flags as
    they were. Train on with `fit(initial_epoch=...)` and the same callbacks. Call it
    inside `strategy.scope()` where the model is to be distributed.

    Args:
        path: A `.keras` file of a compiled model. With an optimizer of
            `discriminative`, or after `GradualUnfreezing`, it says what its slots are
            for. Those of another optimizer, also of a Task of keras-hub, belong to
            what the reloaded model trains, or else to the only variables whose shapes
            they have.
        custom_objects: Dict of name to class or function, as for
            `keras.saving.load_model`. Default None.
        safe_mode: Whether to refuse lambdas, as for `keras.saving.load_model`.
            Default True.

    Returns:
        The compiled model.

    Raises:
        ValueError: If the file is no `.keras` file, holds no compiled model, or the
            state of its optimizer fits no set of variables that is known.

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
        keras.saving.load_model, whose optimizer state this completes.
    """
    path = pathlib.Path(path)
    compiled = _compile_config(path)
    with keras.saving.CustomObjectScope(dict(custom_objects or {})):
        optimizer = keras.saving.deserialize_keras_object(compiled["optimizer"])
        inner = _keras.inner_optimizer(optimizer)
        with warnings.catch_warnings():
            # A keras-hub Task compiles itself when made; that optimizer goes.
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
    """Compile a model with a stock optimizer, and load all that was saved of it."""
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
            "weights of partly frozen layers, and weight files hold no optimizer "
            "settings. Save with model.save('name.keras')."
        )
    with zipfile.ZipFile(path) as archive:
        if "config.json" not in archive.namelist():
            raise ValueError(f"{path.name!r} holds no Keras model (no config.json).")
        compiled = json.loads(archive.read("config.json")).get("compile_config")
    if not compiled:
        raise ValueError(
            f"{path.name!r} holds a model that was not compiled, so there is no "
            "training to resume. Load it with keras.saving.load_model and compile it."
        )
    return compiled


@contextlib.contextmanager
def _complete(path: pathlib.Path) -> Iterator[None]:
    """Turn Keras's warning that an optimizer's state was dropped into an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    dropped = [str(w.message) for w in caught if "Skipping variable" in str(w.message)]
    if dropped:
        raise ValueError(
            f"The state of the optimizer in {path.name!r} cannot be restored. "
            f"{dropped[0]}Either the model was trained under the policy mixed_float16, "
            "which must then be set before resuming; or it was saved before it was "
            "trained; or some of its layers were frozen, which a backbone of keras-hub "
            "does not save, and the file does not tell what the slots are for, as with "
            "keras_transfer.optimizers.discriminative it would. Then model = "
            "keras.saving.load_model(path, compile=False) loads the weights; freeze "
            "the same layers, compile with the same optimizer, and call "
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
    """Return what the optimizer has slots for, and what was trained at the end."""
    weights = model.weights
    wrong = [
        row.name
        for row in table.rows
        if row.weight >= len(weights) or not row.matches(weights[row.weight])
    ]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of the optimizer's variables are not in the reloaded model "
            f"at their place: {wrong[:5]}. The model was built in another way than "
            "when it was saved."
        )
    union = [weights[row.weight] for row in table.rows]
    trained = [weights[row.weight] for row in table.rows if row.trainable]
    return union, trained
