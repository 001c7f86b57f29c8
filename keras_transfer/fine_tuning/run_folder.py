"""A folder from which an interrupted run of fine_tune continues."""

from __future__ import annotations

import json
import os
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._whole_file import is_partial
from keras_transfer._whole_file import remove_partials
from keras_transfer._whole_file import replace_file
from keras_transfer.backbones.fingerprint import RowDigest
from keras_transfer.data.examples import map_arrays

STATE = "fine_tune.json"
START = "fine_tune_0.weights.h5"
END = "fine_tune_end.weights.h5"
PILOT = "pilot.json"
PROBE = "probe.npz"

CHUNK = 1024  # rows that are copied at a time


class RunFolder:
    """Save and restore weights, optimizer, seeds and history after each epoch.

    The state file contains the name of the weights file, and is replaced in one step.
    If the process is killed while it saves, the state of the previous epoch remains.
    The `callback` must come after all callbacks that change the logs or, like
    EarlyStopping, the weights.

    Args:
        path: A new or empty folder, or the folder of the same run.
        settings: Dict of the settings that identify the run, with values that JSON can
            store. Other settings in the folder raise an error.
        history: The History that `fit` fills.

    Raises:
        ValueError: If the folder belongs to another run, or is not the folder of a run.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        settings: dict,
        history: keras.callbacks.History,
    ) -> None:
        self.path = pathlib.Path(path)
        self.settings = settings
        self.history = history
        self.state = self._read()

    @property
    def epoch(self) -> int:
        """The number of completed epochs."""
        return self.state["epoch"] if self.state else 0

    @property
    def seed(self) -> int | None:
        """The seed of the run, or None before the run has begun."""
        return self.state["seed"] if self.state else None

    @property
    def finished(self) -> bool:
        """Whether the run has ended, by its number of epochs or by a callback."""
        return bool(self.state) and self.state["finished"]

    @property
    def callback(self) -> keras.callbacks.Callback:
        """A callback that saves the state after each epoch, and at the end."""
        return _Saves(self)

    def begin(self, model: keras.Model, seed: int) -> None:
        """Save the start of a new run with its seed, or load the last saved state."""
        self.path.mkdir(parents=True, exist_ok=True)
        remove_partials(self.path)
        if self.state is None:
            self.save(model, 0, START, seed)
            return
        model.load_weights(self.path / self.state["weights"])
        seeds = _keras.seeds(model)
        for variable, value in zip(seeds, self.state["seeds"], strict=True):
            variable.assign(np.array(value, variable.dtype))
        self.restore_history()

    def restore_history(self) -> None:
        """Restore the completed epochs in the History."""
        self.history.epoch = list(self.state["epochs"])
        self.history.hurt = self.state.get("hurt")  # absent in earlier versions
        for name, values in self.state["history"].items():
            self.history.history[name] = list(values)

    def save(
        self, model: keras.Model, epoch: int, weights: str, seed: int, end: bool = False
    ) -> None:
        """Save the state after `epoch` epochs in a file named `weights`."""
        old = self.state and self.state["weights"]
        model.save_weights(self.path / weights)
        self.state = {
            "settings": self.settings,
            "seed": seed,
            "epoch": epoch,
            "finished": end,
            "weights": weights,
            "seeds": [_keras.value(x).tolist() for x in _keras.seeds(model)],
            "epochs": list(getattr(self.history, "epoch", ())),
            "history": {k: list(v) for k, v in self.history.history.items()},
            "hurt": getattr(self.history, "hurt", None),
        }
        text = json.dumps(self.state, default=_plain)
        replace_file(self.path / STATE, text.encode())
        if old and old != weights:
            (self.path / old).unlink(missing_ok=True)

    def save_end(self, model: keras.Model) -> None:
        """Save the state at the end of the run."""
        self.save(model, self.epoch, END, self.seed, end=True)

    def _read(self) -> dict | None:
        file = self.path / STATE
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"directory={str(self.path)!r} is a file. Pass a folder.")
        if not file.exists():
            inside = self.path.iterdir() if self.path.exists() else ()
            # A process killed at the start leaves the first weights and partial files.
            begun = (START, PILOT)
            other = [x.name for x in inside if not (x.name in begun or is_partial(x))]
            if other:
                raise ValueError(
                    f"The folder {str(self.path)!r} is not the folder of a run. It has "
                    f"{sorted(other)[:5]} and no {STATE}. Pass a new folder."
                )
            return None
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            settings = state["settings"]
            if not (self.path / state["weights"]).is_file():
                raise ValueError(f"its file {state['weights']!r} is missing")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"The run in {str(file)!r} cannot continue: {error}. Delete the folder "
                "to start again, or pass a new folder."
            ) from error
        check_same(self.path, settings, self.settings)
        return state


def check_same(path: pathlib.Path, begun: Mapping, settings: Mapping) -> None:
    """Check that a call has the settings of the run in a folder.

    Raises:
        ValueError: If settings differ.
    """
    changed = [
        f"{key}: {begun.get(key)!r} in the folder, {settings.get(key)!r} in this call"
        for key in sorted({*begun, *settings})
        if begun.get(key) != settings.get(key)
    ]
    if changed:
        raise ValueError(
            f"The folder {str(path)!r} belongs to a run with other settings "
            f"({'; '.join(changed)}). Pass a new folder, or delete this folder."
        )


def begun_settings(path: str | os.PathLike | None) -> dict | None:
    """Return the settings of the run in a folder, or None if no run has begun there.

    `RunFolder` raises the errors of a folder that cannot be used.
    """
    try:
        text = (pathlib.Path(path) / STATE).read_text(encoding="utf-8")
        return dict(json.loads(text)["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def identity(model: keras.Model, data: Any, labels: Any) -> dict:
    """Return values that identify the model and the data of a run.

    Args:
        model: The compiled model.
        data: Tuple of arrays, or a dataset.
        labels: All labels of `data`, as returned by `read_labels`.
    """
    optimizer = _keras.inner_optimizer(model.optimizer)
    rate = _keras.settings(optimizer)["learning_rate"]
    # The order of arrays counts, because it and the seed determine the order of an
    # epoch. The order of a dataset does not, because it may differ in each pass.
    if isinstance(data, tuple):
        arrays = keras.tree.flatten(map_arrays(np.asarray, data))
    else:
        arrays = [np.sort(array, axis=None) for array in keras.tree.flatten(labels)]
    digest = RowDigest()
    for array in arrays:
        for start in range(0, len(array), CHUNK):
            digest.update(array[start : start + CHUNK])
    return {
        "optimizer": type(optimizer).__name__,
        "learning_rate": rate if isinstance(rate, float) else type(rate).__name__,
        "weights": zlib.crc32(str([x.shape for x in model.weights]).encode()),
        "data": digest.value(),
    }


class _Saves(keras.callbacks.Callback):
    """Save the state of a training to a RunFolder."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__()
        self.folder = folder

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Restore the epochs of the History, which Keras has just reset."""
        self.folder.restore_history()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Save the state after `epoch`."""
        done, name = epoch + 1, f"fine_tune_{epoch + 1}.weights.h5"
        self.folder.save(self.model, done, name, self.folder.seed)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Save the state again, because a callback may have restored other weights."""
        self.folder.save_end(self.model)


def _plain(value: object) -> object:
    """Return a value that JSON cannot store, such as an array, as lists of numbers."""
    return np.asarray(value).tolist()
