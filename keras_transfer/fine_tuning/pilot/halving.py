"""How a pilot spends its steps: successive halving of the candidates."""

from __future__ import annotations

import math
from typing import NamedTuple

LEAST = 8  # steps of a trial below which it shows nothing


class Rung(NamedTuple):
    """A round of trials of equal length. The better half goes on to the next rung.

    Args:
        candidates: Number of candidates.
        steps: Steps of each trial.
        folds: Number of folds on which each candidate is tried.
    """

    candidates: int
    steps: int
    folds: int = 1


def rungs(candidates: int, budget: int, epoch: int, longest: int, folds: int) -> list:
    """Return the rungs of a pilot, or none if the steps are too few for one trial.

    As many candidates as possible start, so that the shortest trial has at least half
    an epoch. Each rung has an equal share of the steps. What a last rung of the longest
    trials leaves pays for more folds.

    Args:
        candidates: Number of candidates.
        budget: Steps of all trials together.
        epoch: Steps of an epoch of a trial.
        longest: Steps of the longest trial that is of use.
        folds: The largest number of folds.

    Reference:
        Jamieson and Talwalkar 2016, Non-stochastic Best Arm Identification and
        Hyperparameter Optimization, arXiv:1502.07943.
    """
    least = min(longest, max(LEAST, math.ceil(epoch / 2)))
    for count in range(candidates, 0, -1):
        sizes = [count]
        while sizes[-1] > 2:
            sizes.append(math.ceil(sizes[-1] / 2))
        share = budget // len(sizes)
        if share // count < least:
            continue
        found = [Rung(size, min(longest, share // size)) for size in sizes]
        left = budget - sum(each.candidates * each.steps for each in found)
        last = found[-1]
        more = left // (last.candidates * last.steps) if last.steps == longest else 0
        found[-1] = last._replace(folds=min(folds, 1 + more))
        return found
    return []
