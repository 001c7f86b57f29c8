"""The pilot of fine_tune: short trials that choose a strategy on held-out labels."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from keras_transfer import _keras
from keras_transfer.fine_tuning.candidate import Candidate
from keras_transfer.fine_tuning.pilot.candidates import candidates
from keras_transfer.fine_tuning.pilot.halving import Rung
from keras_transfer.fine_tuning.pilot.halving import rungs
from keras_transfer.fine_tuning.pilot.held_out import FOLDS
from keras_transfer.fine_tuning.pilot.record import Pilot
from keras_transfer.fine_tuning.pilot.record import TrialFile
from keras_transfer.fine_tuning.pilot.record import Tried
from keras_transfer.fine_tuning.pilot.trials import Trials
from keras_transfer.fine_tuning.run import Run
from keras_transfer.fine_tuning.unchanged import ModelState
from keras_transfer.optimizers.discriminative import Discriminative

FEWEST = 40  # labels below which held-out labels say nothing
PROBE = Candidate("probe")


def no_pilot(run: Run, budget: float) -> str | None:
    """Return why a run has no pilot, or None if it has one."""
    if budget == 0:
        return "because budget=0"
    if run.strategy.name not in ("lp-ft", "full"):
        return run.strategy.reason
    if run.made_labels:
        return "because the preprocessor creates the labels"
    if run.num_examples < FEWEST:
        return (
            f"because {run.num_examples} labels are too few to hold any out for a "
            f"pilot, which needs {FEWEST}"
        )
    if not plan(run, budget, 8):
        return (
            f"because {run.epochs * run.num_batches * budget:.0f} steps are too few "
            "for a pilot"
        )
    return None


def plan(run: Run, budget: float, count: int) -> list[Rung]:
    """Return the rungs of a pilot of `count` candidates."""
    share = 1 - 1 / FOLDS
    epoch = max(1, round(run.num_batches * share))
    steps = round(budget * run.epochs * run.num_batches)
    return rungs(count, steps, epoch, epoch * (run.epochs - 1), FOLDS)


def hold_pilot(run: Run, budget: float, batch_norm: str, frozen: Any) -> Pilot:
    """Try the candidates of a run on held-out labels, and return what was chosen.

    The model is unchanged at the end, also after an error or an interrupt. With the
    folder of the run, trials that are done are not repeated.

    Args:
        run: A run that has not begun.
        budget: Steps of the pilot, as a share of the steps of a whole run.
        batch_norm: As in `fine_tune`.
        frozen: As in `fine_tune`.
    """
    own = isinstance(_keras.inner_optimizer(run.model.optimizer), Discriminative)
    name = run.strategy.name
    found = candidates(run.model, name, batch_norm, own_rates=own)
    file = _trial_file(run, budget, batch_norm)
    run = dataclasses.replace(run, seed=file.seed)
    planned = plan(run, budget, len(found))
    start = ModelState(run.model, run.model.weights)
    with _keras.random_state_kept():
        try:
            trials = Trials(run, start, frozen)
            tried = _halved(trials, file, found, planned)
        finally:
            start.restore()
    rows = sorted(tried.values(), key=lambda x: [PROBE, *found].index(x.candidate))
    last = max(each.steps for each in rows)
    finalists = [each for each in rows if each.steps in (0, last)]
    chosen, why = choose(finalists)
    first = trials.folds[0]
    pilot = Pilot(
        tuple(rows),
        chosen,
        why,
        labels=len(first.train) + len(first.held_out),
        seed=file.seed,
        steps=sum(each.candidates * each.steps * each.folds for each in planned),
    )
    file.finish(pilot)
    return pilot


def choose(finalists: list[Tried]) -> tuple[Candidate, str]:
    """Return the candidate to use, and why.

    The first candidate after the probe is the default of the finalists. Another one
    replaces it if it is better by more than the standard error of the difference on the
    same held-out examples. Few examples rarely show that in an accuracy. So another
    rate or strategy with at least the same metric also replaces the default if its loss
    is lower by more than the standard error.

    Args:
        finalists: The probe, and the candidates with the longest trials, in the order
            in which they are preferred.
    """
    sound = [each for each in finalists if each.score.finite]
    if not sound:
        return PROBE, "No trial has finite outputs, so only the head trains."
    default = ([each for each in sound if each.steps] or sound)[0]
    better = [each for each in sound if _beats(each, default)]
    best = min(better or [default], key=lambda x: (-x.score.mean, x.score.loss))
    why = f"The pilot chose {best.candidate}: "
    if len(sound) == 1:
        why += "nothing else has finite outputs."
    elif best is default:
        why += "no other candidate is better by a standard error."
    else:
        gain, error = best.score.gain(default.score)
        name = best.score.metric
        if gain <= error:
            gain, error = best.score.loss_gain(default.score)
            name = "loss"
        why += f"its {name} is better than that of {default.candidate} by {gain:.3f} "
        why += f"± {error:.3f}."
    if best.candidate.strategy == "probe" and default is not best:
        why += " Fine-tuning hurt here, so only the head trains."
    return best.candidate, why


def _beats(each: Tried, default: Tried) -> bool:
    gain, error = each.score.gain(default.score)
    if gain > error:
        return True
    lower, error = each.score.loss_gain(default.score)
    return bool(each.steps) and gain >= 0 and lower > error


def _halved(
    trials: Trials, file: TrialFile, found: list[Candidate], planned: list[Rung]
) -> dict[Candidate, Tried]:
    """Return the longest trials of each candidate after successive halving."""
    folds = planned[-1].folds
    tried = {PROBE: Tried(PROBE, 0, _score(trials, file, PROBE, 0, folds))}
    left = found[: planned[0].candidates]
    for rung in planned:
        left = left[: rung.candidates]
        for each in sorted(left, key=_order):
            score = _score(trials, file, each, rung.steps, rung.folds)
            tried[each] = Tried(each, rung.steps, score)
        left = sorted(left, key=lambda each: _rank(tried[each], found))
    return tried


def _order(candidate: Candidate) -> tuple:
    """Return a key that puts trials with the same trainable variables together."""
    return candidate.strategy == "lora", candidate.batch_norm


def _rank(tried: Tried, found: list[Candidate]) -> tuple:
    score = tried.score
    if not score.finite:
        return (1, 0, 0, 0)
    return 0, -score.mean, score.loss, found.index(tried.candidate)


def _score(
    trials: Trials, file: TrialFile, candidate: Candidate, steps: int, folds: int
) -> Any:
    joined = None
    for fold in range(folds):
        score = file.get(candidate, steps, fold)
        if score is None:
            score = trials.trial(candidate, steps, fold)
            file.add(candidate, steps, fold, score)
        joined = score if joined is None else joined.joined(score)
    return joined


def _trial_file(run: Run, budget: float, batch_norm: str) -> TrialFile:
    if run.folder is None:
        return TrialFile(None, {}, run.seed)
    settings = run.folder.settings | {"budget": budget, "batch_norm": batch_norm}
    return TrialFile(pathlib.Path(run.folder.path), settings, run.seed)
