"""The choice of fine_tune's default strategy, by a pilot where one is possible."""

from __future__ import annotations

from keras_transfer._arguments import number
from keras_transfer.fine_tuning.candidate import Candidate
from keras_transfer.fine_tuning.candidate import POLICIES
from keras_transfer.fine_tuning.pilot.pilot import hold_pilot
from keras_transfer.fine_tuning.pilot.pilot import no_pilot
from keras_transfer.fine_tuning.pilot.record import kept_pilot
from keras_transfer.fine_tuning.pilot.record import Pilot
from keras_transfer.fine_tuning.run import Run
from keras_transfer.fine_tuning.run_folder import begun_settings

BUDGET = 1.0


def pilot_choice(
    arguments: tuple, batch_norm: str, budget: float
) -> tuple[Candidate, Pilot | None]:
    """Return what to do with a model, and the pilot that chose it, or None.

    Args:
        arguments: The first arguments of `Run.of`.
        batch_norm: As in `fine_tune`.
        budget: As in `fine_tune`.
    """
    number("budget", budget, least=0, why="It is a multiple of the steps of one run")
    model, _, _, _, directory, frozen, settings = arguments
    default = Candidate("auto", batch_norm=POLICIES[batch_norm])
    began = begun_settings(directory)
    if began is not None and "pilot" in began:
        pilot = kept_pilot(directory)
        return pilot.chosen, pilot
    run = Run.of(*arguments, default)
    why = None if began is None else run.strategy.reason
    why = why or no_pilot(run, budget)
    if why is not None:
        if run.verbose and why != run.strategy.reason:
            print(f"fine_tune: no pilot, {why}")
        return default, None
    pilot = hold_pilot(run, budget, batch_norm, frozen)
    if run.verbose:
        print(f"fine_tune: {pilot}")
    return pilot.chosen, pilot
