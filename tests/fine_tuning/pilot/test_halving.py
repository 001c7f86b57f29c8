"""The steps of a pilot: within the budget, the better half goes on, then more folds."""

import itertools
import math

import pytest

from keras_transfer.fine_tuning.pilot.halving import FAVORITES
from keras_transfer.fine_tuning.pilot.halving import LEAST
from keras_transfer.fine_tuning.pilot.halving import plan_trials
from keras_transfer.fine_tuning.pilot.halving import Rung
from keras_transfer.fine_tuning.pilot.halving import SHORTEST

OVERHEAD = 0.5


def plans():
    """Yield plans for many sizes, with the numbers that they were made from."""
    sizes = (1, 2, 3, 5, 8), (4, 9, 30, 200, 1000), (1, 6, 18, 100, 400)
    for count, budget, longest in itertools.product(*sizes):
        plan = plan_trials(count, budget, longest, 4, OVERHEAD)
        if plan is not None:
            yield plan, count, budget, longest


def test_the_budget_is_never_exceeded():
    for plan, _, budget, _ in plans():
        rungs = (*plan.screening, plan.final)
        trials = sum(rung.candidates * rung.folds for rung in rungs)
        assert plan.steps + trials * OVERHEAD <= budget
        assert plan.steps == sum(x.candidates * x.steps * x.folds for x in rungs)


def test_no_trial_is_too_short_or_too_long():
    for plan, _, _, longest in plans():
        assert min(longest, SHORTEST) <= plan.final.steps <= longest
        for rung in plan.screening:
            assert min(longest, LEAST) <= rung.steps <= longest


def test_half_of_the_candidates_go_on():
    seen = 0
    for plan, count, _, _ in plans():
        sizes = [rung.candidates for rung in plan.screening]
        seen += len(sizes) > 1
        assert sizes[:1] <= [count - FAVORITES]
        for size, following in itertools.pairwise(sizes):
            assert following == math.ceil(size / 2)
        assert plan.final.candidates <= min(count, FAVORITES + 1)
    assert seen


def test_folds_are_paid_by_what_the_longest_trials_leave():
    plan = plan_trials(2, 100, 20, 4, 0)
    assert plan == ((), Rung(2, 20, folds=2))
    assert plan_trials(2, 119, 20, 4, 0).final.folds == 2
    assert plan_trials(2, 120, 20, 4, 0).final.folds == 3
    assert plan_trials(2, 1000, 20, 4, 0).final.folds == 4
    assert plan_trials(2, 100, 60, 4, 0).final == Rung(2, 50)


def test_with_too_few_steps_fewer_candidates_are_tried_and_then_none():
    assert plan_trials(3, 60, 100, 4, 0).final == Rung(3, 20)
    assert plan_trials(3, 59, 100, 4, 0).final == Rung(2, 29)
    assert plan_trials(3, 39, 100, 4, 0).final == Rung(1, 39)
    assert plan_trials(2, 8, 100, 4, 0).final == Rung(1, 8)
    assert plan_trials(2, 7.9, 100, 4, 0) is None
    # The whole training has only three steps.
    assert plan_trials(2, 6, 3, 4, 0).final == Rung(2, 3)


@pytest.mark.parametrize("longest", [12, 60])
def test_with_many_steps_all_candidates_are_tried(longest):
    plan = plan_trials(8, 2000, longest, 4, OVERHEAD)
    assert plan.screening[0].candidates == 8 - FAVORITES
    assert plan.final.folds == 4
