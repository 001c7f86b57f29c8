"""How a pilot spends its steps: a screening by successive halving, and a final."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

FAVORITES = 2  # candidates that need no screening
SHORTEST = 8  # steps below which a trial shows nothing
# A high rate needs some steps until it is better than a low one. With fewer steps than
# these, more candidates would only favor low rates.
LEAST = 20
SCREENING = 0.25  # share of the steps


class Rung(NamedTuple):
    """A round of trials of equal length.

    Args:
        candidates: Number of candidates.
        steps: Steps of each trial.
        folds: Number of folds on which each candidate is tried.
    """

    candidates: int
    steps: int
    folds: int = 1


class Plan(NamedTuple):
    """The trials of a pilot.

    Args:
        screening: Rungs among the candidates that are not favorites. The better half
            goes on to the next rung, and the best of the last rung to the final.
        final: The rung of the favorites, and of the best of the screening.
    """

    screening: tuple[Rung, ...]
    final: Rung

    @property
    def steps(self) -> int:
        """Steps of all trials together."""
        rungs = (*self.screening, self.final)
        return sum(x.candidates * x.steps * x.folds for x in rungs)


def plan_trials(
    candidates: int, budget: float, longest: int, folds: int, overhead: float
) -> Plan | None:
    """Return the plan of a pilot, or None if the steps are too few for one trial.

    Args:
        candidates: Number of candidates.
        budget: Steps of all trials together.
        longest: Steps of the longest trial that is of use.
        folds: The largest number of folds.
        overhead: Cost of the evaluation of a trial, in steps.

    Reference:
        Jamieson and Talwalkar 2016, Non-stochastic Best Arm Identification and
        Hyperparameter Optimization, arXiv:1502.07943.
    """

    def steps(budget: float, count: int) -> int:
        return min(longest, int(budget / count - overhead))

    finalists = min(candidates, FAVORITES + 1)
    while finalists > 1 and steps(budget, finalists) < min(longest, LEAST):
        finalists -= 1
    if steps(budget, finalists) < min(longest, SHORTEST):
        return None
    screening = ()
    if finalists > FAVORITES:
        others, least = candidates - FAVORITES, min(longest, LEAST)
        screening = _screening(others, SCREENING * budget, steps, least)
    left = budget - sum(x.candidates * (x.steps + overhead) for x in screening)
    final = Rung(finalists, max(1, steps(left, finalists)))
    if final.steps == longest:
        cost = finalists * (longest + overhead)
        final = final._replace(folds=max(1, min(folds, int(left / cost))))
    return Plan(screening, final)


def _screening(
    others: int, budget: float, steps: Callable, least: int
) -> tuple[Rung, ...]:
    """Return the rungs that find the best of as many candidates as possible."""
    for count in range(others, 1, -1):
        sizes = [count]
        while sizes[-1] > 2:
            sizes.append(math.ceil(sizes[-1] / 2))
        rungs = [Rung(size, steps(budget / len(sizes), size)) for size in sizes]
        if rungs[0].steps >= least:
            return tuple(rungs)
    return ()
