"""Strategies of fine-tuning: which layer groups learn in which epochs."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from keras_transfer._arguments import one_of
from keras_transfer.callbacks.phases import Phase

STRATEGIES = ("auto", "probe", "lp-ft", "gradual", "full")

# Numbers of labels at which "auto" changes its mind: a rule of thumb, no paper's.
FEW = 500
MANY = 5000

# A head on features that stay as they are stands a higher rate than one on features
# that move, and needs it, to get far in few epochs.
ALONE_RATE = 10.0


class Recipe(NamedTuple):
    """A strategy by name, its phases, and why it was chosen."""

    strategy: str
    phases: list[Phase]
    reason: str


def recipe(
    strategy: str, names: Sequence[str], epochs: int, labels: int, *, frozen: bool
) -> Recipe:
    """Return the phases of a strategy.

    Args:
        strategy: One of `STRATEGIES`.
        names: The layer groups that can learn, stem first, head last.
        epochs: Epochs of all phases together.
        labels: Number of labelled examples.
        frozen: Whether the backbone can never thaw.

    Returns:
        A `Recipe`; the last phase has no end.

    Raises:
        ValueError: If the strategy is unknown, has more phases than epochs, or would
            thaw what can never thaw.
    """
    one_of("strategy", strategy, STRATEGIES)
    reason = "as asked"
    lowest = 0  # the first group that learns at any time
    if strategy == "auto" and frozen:
        strategy, reason = "probe", "the backbone is a FrozenBackbone"
    elif strategy == "auto":
        strategy, lowest, reason = _by_labels(labels, len(names))
    head = (names[-1],)
    if strategy == "probe":
        return Recipe(strategy, [Phase(head, rate=ALONE_RATE)], reason)
    if frozen:
        raise ValueError(
            f"strategy={strategy!r} thaws the backbone, but the model holds a "
            "FrozenBackbone, which never thaws. Build the model on its "
            "`FrozenBackbone.layer`, or take strategy='probe'."
        )
    if len(names) == 1:
        reason = "only one layer group can learn"
        return Recipe("probe", [Phase(head, rate=ALONE_RATE)], reason)
    if strategy == "full":
        return Recipe(strategy, [Phase(tuple(names))], reason)
    if epochs < 2:
        raise ValueError(
            f"epochs={epochs} cannot hold the strategy {strategy!r} ({reason}): the "
            "head learns alone first. Give 2 epochs or more, or take strategy='probe' "
            "or 'full'."
        )
    alone = max(1, epochs // 3)
    phases = [Phase(head, alone, ALONE_RATE)]
    if strategy == "lp-ft":
        return Recipe(strategy, [*phases, Phase(tuple(names))], reason)
    thawed = len(names) - 1 - lowest
    steps = min(thawed, epochs - alone)
    for step in range(1, steps + 1):
        count = math.ceil(thawed * step / steps)
        phases.append(Phase(tuple(names[-1 - count :]), 1))
    phases[-1] = Phase(phases[-1].groups)
    return Recipe(strategy, phases, reason)


def _by_labels(labels: int, groups: int) -> tuple[str, int, str]:
    rule = (
        f"by a rule of thumb for {labels:,} labels: under {FEW:,} the head, to "
        f"{MANY:,} the upper half of the layer groups, above that all"
    )
    if labels < FEW:
        return "probe", 0, rule
    # Of two groups the head is the upper half, and one more is to thaw.
    lowest = max(0, min(groups // 2, groups - 2))
    return "gradual", lowest if labels <= MANY else 0, rule
