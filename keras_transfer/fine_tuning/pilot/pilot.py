"""The pilot of fine_tune: short trials that choose a strategy on held-out labels."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import Any

from keras_transfer import _keras
from keras_transfer.fine_tuning.candidate import Candidate
from keras_transfer.fine_tuning.new_head import NEW
from keras_transfer.fine_tuning.pilot.candidates import candidates
from keras_transfer.fine_tuning.pilot.halving import FAVORITES
from keras_transfer.fine_tuning.pilot.halving import Plan
from keras_transfer.fine_tuning.pilot.halving import plan_trials
from keras_transfer.fine_tuning.pilot.held_out import FOLDS
from keras_transfer.fine_tuning.pilot.held_out import MOST
from keras_transfer.fine_tuning.pilot.record import Pilot
from keras_transfer.fine_tuning.pilot.record import TrialFile
from keras_transfer.fine_tuning.pilot.record import Tried
from keras_transfer.fine_tuning.pilot.trials import Trials
from keras_transfer.fine_tuning.run import Run
from keras_transfer.fine_tuning.unchanged import ModelState
from keras_transfer.optimizers.discriminative import Discriminative

FEWEST = 40  # labels below which held-out labels say nothing
PROBE = Candidate("probe")
EVALUATION = 1 / 3  # cost of a batch without gradients, in steps


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
    planned = _plan(run, budget, FAVORITES)
    if planned is None or planned.final.candidates <= _trains_probe(run):
        return f"because {budget * _steps(run):.0f} steps are too few for a pilot"
    return None


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
    found = candidates(run.model, name, batch_norm, own_rates=own, recipe=run.recipe)
    if _trains_probe(run):
        found.insert(1, PROBE)  # the head needs steps too
    file = _trial_file(run, budget, batch_norm)
    run = dataclasses.replace(run, seed=file.seed)
    planned = _plan(run, budget, len(found))
    start = ModelState(run.model, run.model.weights)
    with _keras.random_state_kept():
        try:
            trials = Trials(run, start, frozen)
            tried, finalists = _try(trials, file, found, planned)
        finally:
            start.restore()
    order = list(dict.fromkeys([PROBE, *found]))
    rows = sorted(tried.values(), key=lambda x: order.index(x.candidate))
    chosen, why = choose([each for each in rows if each.candidate in finalists])
    first = trials.folds[0]
    pilot = Pilot(
        tuple(rows),
        chosen,
        why,
        labels=len(first.train) + len(first.held_out),
        seed=file.seed,
        steps=planned.steps,
        left_out=tuple(each for each in found if each not in tried),
    )
    file.finish(pilot)
    return pilot


def choose(finalists: list[Tried]) -> tuple[Candidate, str]:
    """Return the candidate to use, and why.

    The first candidate after the probe is the default of the finalists. Another one
    replaces it if its metric is better by more than the standard error of the
    difference on the same held-out examples. A few examples rarely show that in an
    accuracy, but their loss does. So another rate or strategy also replaces the default
    if the differences of the metric and of the loss, each in its standard errors, have
    a sum above 2. The probe, whose loss is low because its outputs are careful, cannot.

    Args:
        finalists: The probe, and the candidates with the longest trials, in the order
            in which they are preferred.
    """
    sound = [each for each in finalists if each.score.finite]
    if not sound:
        return PROBE, "No trial has finite outputs, so only the head trains."
    default = ([each for each in sound if each.candidate != PROBE] or sound)[0]
    gains = [(*_gains(each, default), each) for each in sound]
    better = [
        (first, second, each)
        for first, second, each in gains
        if first > 1 or first + second > 2 and each.candidate != PROBE
    ]
    best = default
    if better:
        *_, best = max(better, key=lambda x: (x[0] + x[1], x[0]))
    why = f"The pilot chose {best.candidate}: "
    if len(sound) == 1:
        why += "nothing else has finite outputs."
    elif best is default:
        why += "no other candidate is clearly better."
    else:
        gain, error = best.score.gain(default.score)
        lower, loss_error = best.score.loss_gain(default.score)
        name = best.score.metric
        why += f"compared with {default.candidate}, its {name} is better by {gain:.2g} "
        why += f"± {error:.2g}"
        if name != "loss":
            why += f", and its loss by {lower:.2g} ± {loss_error:.2g}"
        why += "."
    if best.candidate.strategy == "probe" and default is not best:
        why += " Fine-tuning hurt here, so only the head trains."
    return best.candidate, why


def _gains(each: Tried, default: Tried) -> tuple[float, float]:
    """Return the gains of the metric and of the loss in their standard errors."""
    pairs = each.score.gain(default.score), each.score.loss_gain(default.score)
    return tuple(
        gain / error if error else math.copysign(math.inf, gain) if gain else 0.0
        for gain, error in pairs
    )


def _trains_probe(run: Run) -> bool:
    """Return whether the probe needs steps, and so one more trial, for a new head."""
    return run.head == NEW and not run.strategy.converges


def _steps(run: Run) -> int:
    """Return the steps of the run that need the whole model."""
    cached = run.head_epochs if run.cached else 0
    return (run.epochs - cached) * run.num_batches


def _plan(run: Run, budget: float, count: int) -> Plan | None:
    """Return the plan of a pilot of `count` candidates, or None."""
    batches = min(run.num_examples, MOST) / run.batch_size
    epoch = max(1, math.ceil(batches * (1 - 1 / FOLDS)))
    return plan_trials(
        count,
        budget * _steps(run),
        epoch * run.epochs,
        FOLDS,
        batches / FOLDS * EVALUATION,
    )


def _try(
    trials: Trials, file: TrialFile, found: list[Candidate], planned: Plan
) -> tuple[dict[Candidate, Tried], list[Candidate]]:
    """Return the longest trials of each candidate, and the finalists."""
    tried = {}

    def rung(candidates: list[Candidate], steps: int, folds: int) -> None:
        for each in sorted(candidates, key=_order):
            score = _score(trials, file, each, steps, folds)
            tried[each] = Tried(each, steps, score)

    favorites, others = found[:FAVORITES], found[FAVORITES:]
    for each in planned.screening:
        others = others[: each.candidates]
        rung(others, each.steps, each.folds)
        others = sorted(others, key=lambda x: _rank(tried[x], found))
    final = planned.final
    finalists = [*favorites, *others][: final.candidates]
    if PROBE not in found:
        rung([PROBE], 0, final.folds)
    rung(finalists, final.steps, final.folds)
    return tried, [PROBE, *finalists]


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
