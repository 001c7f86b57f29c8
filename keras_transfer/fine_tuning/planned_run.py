"""The run of fine_tune, planned by name or by a pilot, with the adapter it needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from keras_transfer import _keras
from keras_transfer._arguments import number
from keras_transfer.adapters.lora import LoRA
from keras_transfer.adapters.merge import detach
from keras_transfer.adapters.switching import attached
from keras_transfer.backbones.compiled_model import check_compiled
from keras_transfer.fine_tuning.candidate import Candidate
from keras_transfer.fine_tuning.candidate import POLICIES
from keras_transfer.fine_tuning.pilot.pilot import hold_pilot
from keras_transfer.fine_tuning.pilot.pilot import no_pilot
from keras_transfer.fine_tuning.pilot.record import kept_pilot
from keras_transfer.fine_tuning.pilot.record import Pilot
from keras_transfer.fine_tuning.run import Call
from keras_transfer.fine_tuning.run import Run
from keras_transfer.fine_tuning.run_folder import begun_settings
from keras_transfer.fine_tuning.unchanged import ModelState

BUDGET = 1.0


@contextlib.contextmanager
def planned_run(
    call: Call, strategy: str, batch_norm: str, budget: float
) -> Iterator[Run]:
    """Yield the run of a call, after its pilot and with its adapter attached.

    An error in the block detaches the adapter.

    Args:
        call: The call of `fine_tune`.
        strategy: As in `fine_tune`.
        batch_norm: As in `fine_tune`.
        budget: As in `fine_tune`.
    """
    number("budget", budget, least=0, why="It is a multiple of the steps of one run")
    if strategy != "auto" and budget != BUDGET:
        raise ValueError(
            f"budget={budget} has no effect with strategy={strategy!r}, because only "
            "strategy='auto' has a pilot. Leave one of the two arguments out."
        )
    candidate, run = Candidate(strategy, batch_norm=POLICIES[batch_norm]), None
    settings = {"budget": budget, "batch_norm": batch_norm}
    pilot = _begun(call, settings) if strategy == "auto" else None
    if strategy == "auto" and pilot is None:
        run = Run.of(call, candidate)
        pilot = _held(run, call, batch_norm, budget)
    if pilot is not None:
        candidate = pilot.chosen
    with _adapter(call.model, candidate):
        if run is None or pilot is not None:
            seed, inputs = pilot and pilot.seed, run and run.inputs
            run = Run.of(call, candidate, pilot_seed=seed, inputs=inputs)
        run.history.pilot = pilot
        yield run


def _begun(call: Call, settings: dict) -> Pilot | None:
    """Return the finished pilot of a run that has begun in the folder, or None."""
    began = begun_settings(call.directory)
    if began is None or "pilot" not in began:
        return None
    return kept_pilot(call.directory, settings)


def _held(run: Run, call: Call, batch_norm: str, budget: float) -> Pilot | None:
    """Return the pilot of a run, or None if it has none."""
    if run.folder and run.folder.state:
        return None
    why = no_pilot(run, budget)
    if why is not None:
        if run.verbose and why != run.strategy.reason:
            print(f"fine_tune: no pilot, {why}")
        return None
    pilot = hold_pilot(run, budget, batch_norm, call.frozen)
    if run.verbose:
        print(f"fine_tune: {pilot}")
    return pilot


@contextlib.contextmanager
def _adapter(model: keras.Model, candidate: Candidate) -> Iterator[None]:
    """Attach LoRA if the strategy needs it, and detach it if an error ends the block.

    Raises:
        ValueError: If the model cannot have LoRA with its default targets.
    """
    if candidate.strategy != "lora":
        yield
        return
    check_compiled(model)
    if attached(model):
        yield
        return
    before = ModelState(model, [])
    with _keras.scope(model):
        try:
            LoRA().attach(model, verbose=0)
        except ValueError as error:
            raise ValueError(
                f"strategy='lora' does not fit the model {model.name!r}: {error}"
            ) from error
    try:
        yield
    except Exception:
        detach(model)
        before.restore()
        raise
