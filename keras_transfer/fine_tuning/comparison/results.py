"""The finished runs of a comparison, kept in a folder to continue from."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import zlib
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import keras

from keras_transfer import _keras
from keras_transfer._whole_file import replace_file
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.backbones.groups import LayerGroup
from keras_transfer.fine_tuning.comparison.overlap import content_of
from keras_transfer.fine_tuning.inputs import Inputs
from keras_transfer.fine_tuning.pilot.scores import Score
from keras_transfer.fine_tuning.run_folder import check_same
from keras_transfer.fine_tuning.run_folder import identity

FILE = "comparison.json"


class Result(NamedTuple):
    """One run: its score on the test part, its seconds, and what it trained.

    Args:
        score: The score.
        seconds: Seconds of the training.
        parameters: Number of parameters that trained at the end.
        chosen: Name of the strategy that was used, which differs for "auto".
        cpu_seconds: CPU seconds of this process in the training. Runs of earlier
            versions have None.
        kwh: Energy of the training, or None if it was not measured.
    """

    score: Score
    seconds: float
    parameters: int
    chosen: str
    cpu_seconds: float | None = None
    kwh: float | None = None

    def __str__(self) -> str:
        value = self.score.summary()["estimate"]
        shown = "not finite" if value is None else f"{value:.3f}"
        return f"{self.score.metric} {shown}, {self.seconds:.1f} s"


def identity_of(model: keras.Model, inputs: Inputs, batches: Iterable[tuple]) -> dict:
    """Return values that identify the model, the training data and the test data.

    Args:
        model: The pretrained model. The values of its head, which is new, do not count.
        inputs: The checked inputs.
        batches: The test part.
    """
    arguments = _keras.compile_arguments(model)
    judged = arguments["loss"], arguments["metrics"], arguments["weighted_metrics"]
    known = identity(model, inputs.data, inputs.labels)
    return known | {
        "loss and metrics": [str(_name(x)) for x in keras.tree.flatten(judged)],
        "pretrained": _checksum(layer_groups(model)[:-1]),
        "test": content_of(batches),
    }


def _name(judge: Any) -> Any:
    return getattr(judge, "name", None) or getattr(judge, "__name__", judge)


def _checksum(groups: Iterable[LayerGroup]) -> int:
    """Return a number that changes with the values of the weights."""
    found = 0
    for group in groups:
        for variable in group.variables:
            found = zlib.crc32(_keras.value(variable).tobytes(), found)
    return found


class Results:
    """Results by strategy and seed.

    Args:
        directory: A new folder, or the folder of the same comparison. None keeps
            nothing.
        settings: Dict that identifies the comparison, with values for JSON.

    Raises:
        ValueError: If the folder has a comparison with other settings, or something
            else.
    """

    def __init__(
        self, directory: str | os.PathLike | None, settings: Mapping[str, object]
    ) -> None:
        self.folder = None if directory is None else pathlib.Path(directory)
        self.state = {"settings": dict(settings), "runs": {}}
        if self.folder is None:
            return
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"directory={str(directory)!r} is a file. Pass a folder.")
        file = self.folder / FILE
        if file.is_file():
            self.state = self._read(file, settings)
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise ValueError(
                f"The folder {str(self.folder)!r} is not the folder of a comparison: "
                f"it is not empty and has no {FILE}. Pass a new folder."
            )
        else:
            self._write()

    def get(self, strategy: str, seed: int) -> Result | None:
        """Return the result of a finished run, or None."""
        kept = self.state["runs"].get(_key(strategy, seed))
        return None if kept is None else Result(Score(*kept[0]), *kept[1:])

    def add(self, strategy: str, seed: int, result: Result) -> None:
        """Keep the result of a run, and remove its own folder."""
        config = [result.score.to_config(), *result[1:]]
        self.state["runs"][_key(strategy, seed)] = config
        self._write()
        folder = self.folder_of(strategy, seed)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def folder_of(self, strategy: str, seed: int) -> pathlib.Path | None:
        """Return the folder in which a run can be continued, or None."""
        return None if self.folder is None else self.folder / _key(strategy, seed)

    def _write(self) -> None:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(self.folder / FILE, json.dumps(self.state).encode())

    def _read(self, file: pathlib.Path, settings: Mapping) -> dict:
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            begun, _ = state["settings"], state["runs"].items()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"The comparison in {str(file)!r} cannot continue: {error}. Delete the "
                "folder to start again, or pass a new folder."
            ) from error
        check_same(self.folder, begun, settings)
        return state


def _key(strategy: str, seed: int) -> str:
    return f"{strategy}-{seed}"
