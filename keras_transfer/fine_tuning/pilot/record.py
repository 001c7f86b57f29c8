"""What a pilot tried and chose: to print, to keep in the History, and to continue."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping

from keras_transfer._whole_file import replace_file
from keras_transfer.fine_tuning.candidate import Candidate
from keras_transfer.fine_tuning.pilot.scores import Score
from keras_transfer.fine_tuning.run_folder import check_same
from keras_transfer.fine_tuning.run_folder import PILOT


@dataclasses.dataclass(frozen=True)
class Tried:
    """The longest trials of one candidate.

    Args:
        candidate: The candidate.
        steps: Steps of each trial; 0 for the probe.
        score: The score on the held-out examples of all folds.
    """

    candidate: Candidate
    steps: int
    score: Score


@dataclasses.dataclass(frozen=True)
class Pilot:
    """The result of a pilot.

    Args:
        tried: What was tried, the probe first.
        chosen: The chosen candidate.
        why: Why it was chosen, as sentences.
        labels: Number of examples in the pilot.
        seed: The seed of the pilot, and of the run after it.
        steps: Steps of all trials.
        left_out: Candidates for which there were too few steps.
    """

    tried: tuple[Tried, ...]
    chosen: Candidate
    why: str
    labels: int
    seed: int
    steps: int
    left_out: tuple[Candidate, ...]

    def __str__(self) -> str:
        lines = [
            f"pilot on {self.labels:,} training labels, a part of them held out, in "
            f"{self.steps:,} steps:"
        ]
        width = max(len(str(each.candidate)) for each in self.tried)
        for row in self.rows():
            value = "not finite"
            if row["estimate"] is not None:
                value = f"{row['metric']} {row['estimate']:.3f} ± {row['error']:.3f}"
            mark = "  <- chosen" if row["chosen"] else ""
            steps = f"after {row['steps']} steps" if row["steps"] else "without steps"
            lines.append(f"  {row['candidate']:{width}}  {value}  {steps}{mark}")
        if self.left_out:
            names = "; ".join(map(str, self.left_out))
            lines.append(f"  not tried within the budget: {names}")
        return "\n".join([*lines, self.why])

    def rows(self) -> list[dict]:
        """Return a dict of plain values for each candidate."""
        return [
            {
                "candidate": str(each.candidate),
                "strategy": each.candidate.strategy,
                "share": each.candidate.share,
                "batch_norm": each.candidate.batch_norm,
                "steps": each.steps,
                "metric": each.score.metric,
                **each.score.summary(),
                "chosen": each.candidate == self.chosen,
            }
            for each in self.tried
        ]

    def to_config(self) -> dict:
        """Return the fields as plain values."""
        tried = [[x.candidate, x.steps, x.score.to_config()] for x in self.tried]
        return vars(self) | {"tried": tried}

    @classmethod
    def from_config(cls, config: Mapping) -> Pilot:
        """Return the pilot from the result of `to_config`."""
        tried = tuple(
            Tried(Candidate(*candidate), steps, Score(*score))
            for candidate, steps, score in config["tried"]
        )
        chosen = Candidate(*config["chosen"])
        left_out = tuple(Candidate(*each) for each in config["left_out"])
        return cls(**config | {"tried": tried, "chosen": chosen, "left_out": left_out})


def kept_pilot(directory: str | os.PathLike, settings: Mapping) -> Pilot:
    """Return the finished pilot of the run in a folder.

    Args:
        directory: The folder.
        settings: Dict of the settings that the pilot must have.

    Raises:
        ValueError: If the folder does not have it.
    """
    path = pathlib.Path(directory) / PILOT
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        begun = {name: state["settings"][name] for name in settings}
        pilot = Pilot.from_config(state["pilot"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"The run in {str(directory)!r} was chosen by a pilot, but its {PILOT} "
            f"cannot be read: {error}. Delete the folder to start again, or pass a new "
            "folder."
        ) from error
    check_same(path.parent, begun, settings)
    return pilot


class TrialFile:
    """The scores of finished trials in the folder of a run, to continue a pilot.

    Args:
        path: The folder, or None to keep nothing.
        settings: Dict that identifies the pilot.
        seed: The seed of a new pilot.

    Raises:
        ValueError: If the folder has a pilot with other settings.
    """

    def __init__(self, path: pathlib.Path | None, settings: Mapping, seed: int) -> None:
        self.path = None if path is None else path / PILOT
        self.state = {"settings": dict(settings), "seed": seed, "trials": {}}
        if self.path is not None and self.path.is_file():
            self.state = self._read(settings)

    @property
    def seed(self) -> int:
        """The seed of the pilot."""
        return self.state["seed"]

    def get(self, candidate: Candidate, steps: int, fold: int) -> Score | None:
        """Return the score of a finished trial, or None."""
        columns = self.state["trials"].get(_key(candidate, steps, fold))
        return None if columns is None else Score(*columns)

    def add(self, candidate: Candidate, steps: int, fold: int, score: Score) -> None:
        """Save the score of a trial."""
        self.state["trials"][_key(candidate, steps, fold)] = score.to_config()
        self._write()

    def finish(self, pilot: Pilot) -> None:
        """Save the result, for calls that continue the run."""
        self.state["pilot"] = pilot.to_config()
        self._write()

    def _write(self) -> None:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.path, json.dumps(self.state).encode())

    def _read(self, settings: Mapping) -> dict:
        try:
            state = json.loads(self.path.read_text(encoding="utf-8"))
            begun, _, _ = state["settings"], state["seed"], state["trials"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"The pilot in {str(self.path)!r} cannot continue: {error}. Delete the "
                "folder to start again, or pass a new folder."
            ) from error
        check_same(self.path.parent, begun, settings)
        return state


def _key(candidate: Candidate, steps: int, fold: int) -> str:
    return f"{candidate}, {steps} steps, fold {fold}"
