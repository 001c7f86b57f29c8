"""The monitored value that ends a phase early, and the state to save for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from keras_transfer._arguments import one_of
from keras_transfer._arguments import whole_number
from keras_transfer.analysis.directions import larger_is_better
from keras_transfer.optimizers.discriminative import Discriminative

# Marks a phase that has had no monitored value yet.
NONE_YET = -1


class PhaseState(NamedTuple):
    """The current phase of a schedule whose phases can end early.

    The optimizer stores it in its variables, so a backup contains it.

    Args:
        phase: Index of the phase.
        first_epoch: The first epoch of the phase.
        wait: Epochs without improvement in the phase, or `NONE_YET`.
        num_phases: Number of phases of the schedule.
        best: Best value in the phase. It has no meaning while `wait` is `NONE_YET`.
    """

    phase: int = 0
    first_epoch: int = 0
    wait: int = NONE_YET
    num_phases: int = 0
    best: float = 0.0

    @classmethod
    def kept_by(cls, optimizer: Discriminative) -> PhaseState:
        """Return the state that `keep_in` stored in a built `optimizer`."""
        return cls(*optimizer.extra_state)

    def keep_in(self, optimizer: Discriminative) -> None:
        """Store the state in the variables of `optimizer`."""
        optimizer.set_extra_state(self)

    def next_phase(self, first_epoch: int) -> PhaseState:
        """Return the state at the beginning of the next phase."""
        return PhaseState(
            self.phase + 1, first_epoch, NONE_YET, self.num_phases, self.best
        )


class Monitor:
    """Count the epochs since a value was at its best. The caller stores the count.

    Args:
        name: Name of the value in the logs.
        patience: Int above 0, epochs without improvement that end a phase.
        mode: "min", "max", or "auto" to choose by the name.

    Raises:
        ValueError: If an argument is out of its range, or if `mode` is "auto" and the
            name does not show which direction is better.
    """

    def __init__(self, name: str, patience: int, mode: str) -> None:
        self.name = name
        self.patience = whole_number("patience", patience)
        self.larger_is_better = _larger_is_better(name, mode)

    def update(
        self, logs: Mapping, wait: int, best: float, *, last_chance: bool
    ) -> tuple[int, float]:
        """Return the epochs without improvement and the best value after an epoch.

        Raises:
            ValueError: If the value is not in the logs and cannot appear later.
        """
        if self.name not in logs:
            self._check_absent(logs, wait, last_chance)
            return wait, best
        # The optimizer stores `best` as float32. Compared as float64, a constant 0.1
        # would improve in every epoch.
        value = float(np.float32(logs[self.name]))
        better = value > best if self.larger_is_better else value < best
        if wait == NONE_YET or better:
            return 0, value
        return wait + 1, best

    def _check_absent(self, logs: Mapping, wait: int, last_chance: bool) -> None:
        """Check that the value may appear later: `fit` may skip validations."""
        validated = any(name.startswith("val_") for name in logs)
        may_come = self.name.startswith("val_") and not validated and not last_chance
        if wait == NONE_YET and not may_come:
            raise ValueError(
                f"monitor={self.name!r} is not in the logs: {sorted(logs)}. Use one "
                "of these names. A 'val_' name needs validation_data in fit, and at "
                "least one validation in each phase."
            )


def _larger_is_better(name: str, mode: str) -> bool:
    one_of("mode", mode, ("auto", "min", "max"))
    if mode != "auto":
        return mode == "max"
    larger = larger_is_better(name)
    if larger is None:
        raise ValueError(
            f"mode='auto' does not work for {name!r}, because the name does not show "
            "if a larger value is better. Pass mode='min' or mode='max'."
        )
    return larger
