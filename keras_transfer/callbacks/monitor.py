"""When a phase ends early: the value that is monitored, and the state to keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from keras_transfer._arguments import one_of
from keras_transfer._arguments import whole_number
from keras_transfer.optimizers.discriminative import Discriminative

# Words in the name of a value that tell which direction is better.
LARGER_IS_BETTER = ("acc", "auc", "precision", "recall", "f1")
SMALLER_IS_BETTER = ("loss", "error", "perplexity")

# The number of epochs without gain of a phase that has seen no value yet.
NONE_YET = -1


class PhaseState(NamedTuple):
    """Where a schedule stands whose phases can end early.

    It is kept with the variables of the optimizer, so that a backup holds it.

    Args:
        phase: Number of the phase.
        first_epoch: Epoch that it began in.
        wait: Epochs without gain in it, or `NONE_YET`.
        num_phases: Number of phases of the schedule.
        best: Best value of the phase; without meaning while `wait` is `NONE_YET`.
    """

    phase: int = 0
    first_epoch: int = 0
    wait: int = NONE_YET
    num_phases: int = 0
    best: float = 0.0

    @classmethod
    def kept_by(cls, optimizer: Discriminative) -> PhaseState:
        """Return the state that `keep_in` gave to a built `optimizer`."""
        return cls(*optimizer.extra_state)

    def keep_in(self, optimizer: Discriminative) -> None:
        """Keep the state where `optimizer` is saved and restored."""
        optimizer.set_extra_state(self)

    def next_phase(self, first_epoch: int) -> PhaseState:
        """Return the state at the beginning of the next phase."""
        return PhaseState(
            self.phase + 1, first_epoch, NONE_YET, self.num_phases, self.best
        )


class Monitor:
    """Counts the epochs since a value was at its best; it keeps no state itself.

    Args:
        name: Name of the value in the logs.
        patience: Epochs without improvement that are too many.
        mode: "min", "max", or "auto" to tell by the name.

    Raises:
        ValueError: If an argument is out of its range, or the name tells nothing.
    """

    def __init__(self, name: str, patience: int, mode: str) -> None:
        self.name = name
        self.patience = whole_number("patience", patience)
        self.larger_is_better = _larger_is_better(name, mode)

    def update(
        self, logs: Mapping, wait: int, best: float, *, last_chance: bool
    ) -> tuple[int, float]:
        """Return the epochs without gain and the best value after one more epoch.

        Raises:
            ValueError: If the value is not there and will not come.
        """
        if self.name not in logs:
            self._check_absent(logs, wait, last_chance)
            return wait, best
        # As an optimizer variable keeps it: else a constant 0.1 would improve for ever.
        value = float(np.float32(logs[self.name]))
        better = value > best if self.larger_is_better else value < best
        if wait == NONE_YET or better:
            return 0, value
        return wait + 1, best

    def _check_absent(self, logs: Mapping, wait: int, last_chance: bool) -> None:
        """Check that the value comes at times: fit() may validate now and then."""
        validated = any(name.startswith("val_") for name in logs)
        may_come = self.name.startswith("val_") and not validated and not last_chance
        if wait == NONE_YET and not may_come:
            raise ValueError(
                f"monitor={self.name!r} is not in the logs: {sorted(logs)}. Name one "
                "of these; a value of the validation needs validation_data in fit, "
                "and at least one validation in a phase."
            )


def _larger_is_better(name: str, mode: str) -> bool:
    one_of("mode", mode, ("auto", "min", "max"))
    if mode != "auto":
        return mode == "max"
    if any(word in name.lower() for word in SMALLER_IS_BETTER):
        return False
    if any(word in name.lower() for word in LARGER_IS_BETTER):
        return True
    raise ValueError(
        f"mode='auto' cannot tell if a larger {name!r} is better. Say mode='min' or "
        "mode='max'."
    )
