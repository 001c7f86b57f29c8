"""Strategies: which groups train in which epochs, and the choice of "auto"."""

import pytest

from keras_transfer.fine_tuning.strategies import ALONE_RATE
from keras_transfer.fine_tuning.strategies import choose_strategy
from keras_transfer.fine_tuning.strategies import STRATEGIES

NAMES = ["stem", "a", "b", "c", "d", "head"]


def plan(strategy, epochs=9, labels=10, names=NAMES, **state):
    return choose_strategy(strategy, names, epochs, labels, **state)


def lengths(phases):
    """Return (number of groups, epochs) of each phase."""
    return [(len(phase.groups), phase.epochs) for phase in phases]


@pytest.mark.parametrize(
    "strategy, epochs, expected",
    [
        ("probe", 1, [(1, None)]),
        ("full", 1, [(6, None)]),
        ("lp-ft", 2, [(1, 1), (6, None)]),
        ("lp-ft", 9, [(1, 3), (6, None)]),
        ("gradual", 2, [(1, 1), (6, None)]),
        ("gradual", 3, [(1, 1), (4, 1), (6, None)]),
        ("gradual", 6, [(1, 2), (3, 1), (4, 1), (5, 1), (6, None)]),
        ("gradual", 9, [(1, 3), (2, 1), (3, 1), (4, 1), (5, 1), (6, None)]),
        ("gradual", 30, [(1, 10), (2, 1), (3, 1), (4, 1), (5, 1), (6, None)]),
    ],
)
def test_phases_of_each_strategy(strategy, epochs, expected):
    made = plan(strategy, epochs)
    assert lengths(made.phases) == expected
    assert made.name == strategy and made.reason == "as requested"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("groups", [1, 2, 3, 14])
def test_phases_fit_into_the_epochs_and_unfreeze_from_the_head(strategy, groups):
    names = [str(i) for i in range(groups)]
    if strategy == "contrastive" and groups == 1:
        with pytest.raises(ValueError, match="trains the layers below a head"):
            plan(strategy, 2, 9999, names)
        return
    for epochs in range(2, 40):
        phases = plan(strategy, epochs, 9999, names).phases
        sets = [set(phase.groups) for phase in phases]
        assert all(small < large for small, large in zip(sets, sets[1:]))
        assert sum(phase.epochs or 1 for phase in phases) <= epochs
        assert [phase.epochs is None for phase in phases].index(True) == len(sets) - 1
        for each in phases:
            assert each.groups == tuple(names[-len(each.groups) :])


@pytest.mark.parametrize(
    "labels, strategy, lowest",
    [
        (499, "probe", 5),
        (500, "gradual", 3),
        (5000, "gradual", 3),
        (5001, "gradual", 0),
    ],
)
def test_an_earlier_auto_depends_on_the_number_of_labels(labels, strategy, lowest):
    made = plan("auto", labels=labels, converges=True, recipe=0)
    assert made.name == strategy
    assert made.phases[-1].groups == tuple(NAMES[lowest:])
    assert f"rule of thumb for {labels:,} labels" in made.reason


def test_an_earlier_auto_unfreezes_the_backbone_of_two_groups():
    made = plan("auto", labels=600, names=["body", "head"], recipe=0)
    assert lengths(made.phases) == [(1, 3), (2, None)]


@pytest.mark.parametrize("labels", [9, 999, 9999])
def test_auto_trains_the_head_and_then_all_groups(labels):
    made = plan("auto", labels=labels)
    assert made.name == "lp-ft" and lengths(made.phases) == [(1, 3), (6, None)]
    made = plan("auto", labels=labels, converges=True)
    assert made.name == "lp-ft" and lengths(made.phases) == [(6, None)]
    assert plan("auto", 1, labels).name == "probe"
    assert plan("auto", 1, labels, converges=True).name == "lp-ft"


@pytest.mark.parametrize(
    "strategy, epochs, expected, thaws",
    [
        ("probe", 9, [(1, None)], []),
        ("lp-ft", 1, [(6, None)], [0]),
        ("lp-ft", 9, [(6, None)], [0]),
        ("lora", 9, [(6, None)], [0]),
        ("gradual", 1, [(6, None)], [0]),
        ("gradual", 2, [(4, 1), (6, None)], [0, 1]),
        ("gradual", 9, [(2, 1), (3, 1), (4, 1), (5, 1), (6, None)], [0, 1, 2, 3, 4]),
    ],
)
def test_a_head_that_converges_needs_no_epoch_alone(strategy, epochs, expected, thaws):
    made = plan(strategy, epochs, converges=True)
    assert lengths(made.phases) == expected
    assert {phase.rate for phase in made.phases} == {1.0}
    assert made.converges and not made.new_head
    assert made.thaws == thaws


def test_a_run_of_the_first_recipe_has_an_epoch_for_a_converged_head():
    for strategy in ("lp-ft", "auto"):
        made = plan(strategy, converges=True, recipe=1)
        assert lengths(made.phases) == [(1, 1), (6, None)]
        assert made.converges and made.thaws == [1]
    assert plan("auto", 1, converges=True, recipe=1).name == "probe"
    gradual = plan("gradual", 4, converges=True, recipe=1)
    assert lengths(gradual.phases) == [(1, 1), (3, 1), (5, 1), (6, None)]
    assert gradual.thaws == [1, 2, 3]


def test_groups_thaw_below_a_head_that_has_trained():
    assert plan("lp-ft").thaws == [3]
    assert plan("lp-ft", head="trained").thaws == [3]
    assert plan("gradual", 4).thaws == [1, 2, 3]
    for strategy in ("full", "probe"):
        assert plan(strategy).thaws == plan(strategy, converges=True).thaws == []


def test_full_trains_a_new_head_from_its_initial_weights():
    made = plan("full", converges=True)
    assert made.new_head and not made.converges
    assert not plan("lp-ft", converges=True, head="trained").converges


def test_the_head_alone_trains_at_a_higher_rate():
    for strategy in ("probe", "lp-ft", "gradual"):
        rates = [phase.rate for phase in plan(strategy).phases]
        assert rates == [ALONE_RATE, *[1.0] * (len(rates) - 1)]
    assert plan("full").phases[0].rate == 1.0


def test_a_frozen_backbone_is_probed_and_other_strategies_raise():
    made = plan("auto", labels=9999, frozen="wrapped")
    assert made.name == "probe" and "FrozenBackbone" in made.reason
    assert plan("probe", frozen="wrapped").reason == "as requested"
    for strategy in ("lp-ft", "gradual", "full"):
        with pytest.raises(ValueError, match=r"`FrozenBackbone\.layer`"):
            plan(strategy, frozen="wrapped")


def test_a_single_group_is_probed():
    made = plan("full", names=["head"])
    assert made.name == "probe" and "only one" in made.reason


def test_too_few_epochs_and_unknown_strategies_raise():
    for strategy, labels in (("lp-ft", 1), ("gradual", 1)):
        with pytest.raises(ValueError, match="epochs=1 is too few"):
            plan(strategy, 1, labels)
    with pytest.raises(ValueError, match="'probing' must be one of"):
        plan("probing")


def test_a_backbone_that_the_user_froze_is_probed_and_other_strategies_raise():
    made = plan("auto", labels=9999, frozen="flags")
    assert made.name == "probe" and "kept frozen" in made.reason
    for how in ("lp-ft", "gradual", "full"):
        with pytest.raises(ValueError, match=f"{how}.*layer.trainable is False"):
            plan(how, frozen="flags")


def test_a_head_that_is_not_new_trains_at_the_learning_rate():
    for how in ("probe", "lp-ft", "gradual", "auto"):
        assert plan(how, labels=9999).phases[0].rate == 10
        for head in ("trained", "none"):
            assert {each.rate for each in plan(how, labels=9999, head=head).phases} == {
                1
            }


def test_a_model_without_a_head_trains_completely():
    for labels in (9, 999, 9999):
        made = plan("auto", labels=labels, head="none")
        assert made.name == "full" and "no new head" in made.reason
        assert lengths(made.phases) == [(6, None)]
