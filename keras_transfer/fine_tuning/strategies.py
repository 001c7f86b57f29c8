"""Fine-tuning strategies: which layer groups train in which epochs, at which rate."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from keras_transfer._arguments import one_of
from keras_transfer.callbacks.phases import first_epochs
from keras_transfer.callbacks.phases import Phase
from keras_transfer.fine_tuning.new_head import NEW
from keras_transfer.fine_tuning.new_head import NONE

CONTRASTIVE = "contrastive"
STRATEGIES = ("auto", "probe", "lp-ft", "gradual", "full", "lora", CONTRASTIVE)

# Numbers of labels at which "auto" changes the strategy. This is a rule of thumb and
# not from a paper.
FEW = 500
MANY = 5000

# The version of the phases and rates below. A run in a folder continues with the recipe
# with which it began: the first one had no number, in 1 a head that had converged
# trained alone for one epoch, and 2 had smaller rates.
RECIPE = 3

# A new head that trains alone, but cannot train to its end on cached features, needs a
# higher rate to get far in a few epochs.
ALONE_RATE = 10.0

# Why a backbone cannot be unfrozen.
AUTO_FROZEN = {
    "wrapped": "because the backbone is a FrozenBackbone",
    "flags": "because all groups below the head are kept frozen",
}
FROZEN = {
    "wrapped": "the model contains a FrozenBackbone, which cannot be unfrozen. Build "
    "the model on its `FrozenBackbone.layer`, or use strategy='probe'.",
    "flags": "the whole backbone is kept frozen, by `frozen=` or because "
    "layer.trainable is False (a loaded model may have this flag). Set "
    "`trainable = True` on the backbone and compile again, name fewer groups in "
    "`frozen=`, or use strategy='probe'.",
}


class Strategy(NamedTuple):
    """The name of a strategy, its phases, and why it was chosen.

    Args:
        name: Name of the strategy.
        phases: The phases, in order.
        reason: Why it was chosen.
        converges: Whether a new head trains to its end before the first epoch.
        new_head: Whether a new head starts from its initial weights instead. It needs a
            higher rate than pretrained groups.
    """

    name: str
    phases: list[Phase]
    reason: str
    converges: bool
    new_head: bool

    @property
    def thaws(self) -> list[int]:
        """The epochs at which layer groups below a head that has trained unfreeze."""
        starts, below = first_epochs(self.phases), len(self.phases[0].groups) > 1
        return starts if self.converges and below else starts[1:]


def choose_strategy(
    name: str,
    names: Sequence[str],
    epochs: int,
    labels: int,
    *,
    frozen: str | None = None,
    head: str = NEW,
    converges: bool = False,
    recipe: int = RECIPE,
) -> Strategy:
    """Return the strategy with this name, and for "auto" the default one.

    Args:
        name: One of `STRATEGIES`.
        names: The layer groups that can train, stem first, head last.
        epochs: Epochs of all phases together.
        labels: Number of labeled examples.
        frozen: Why the backbone cannot be unfrozen: "wrapped" if it is in a
            FrozenBackbone, "flags" if the user froze it. Defaults to None, which means
            that the backbone can be unfrozen.
        head: The result of `head_state`. Only a new head trains at a higher rate while
            it trains alone. Defaults to `NEW`.
        converges: Whether a new head can train to its end on cached features. Then it
            needs no epoch alone. Defaults to False.
        recipe: The recipe with which the run began. Defaults to `RECIPE`.

    Returns:
        A `Strategy`. Its last phase has no end.

    Raises:
        ValueError: If the strategy is unknown, needs more epochs, or would unfreeze a
            backbone that cannot be unfrozen.
    """
    one_of("strategy", name, STRATEGIES)
    reason = "as requested"
    lowest = 0  # the lowest group that any phase trains
    converges = converges and head == NEW and recipe > 0
    first = max(1, epochs // 3)  # epochs of the head alone
    if converges:
        first = 1 if recipe == 1 else 0
    new_head = head == NEW and not converges
    state = (converges, new_head)
    rate = ALONE_RATE if new_head else 1.0
    if name == "auto" and frozen:
        name, reason = "probe", AUTO_FROZEN[frozen]
    elif name == "auto" and head == NONE:
        name = "full"
        reason = "because there is no new head that could damage the layers below it"
    elif name == "auto" and recipe == 0:
        name, lowest, reason = _by_labels(labels, len(names))
    elif name == "auto" and epochs <= first:
        name, reason = "probe", "because one epoch is too few to train more"
    elif name == "auto":
        name, reason = "lp-ft", "by default"
    alone = (names[-1],)
    if name == "probe":
        return Strategy(name, [Phase(alone, rate=rate)], reason, *state)
    if frozen:
        raise ValueError(
            f"strategy={name!r} unfreezes the backbone, but {FROZEN[frozen]}"
        )
    if name == CONTRASTIVE:
        if len(names) == 1 or head == NONE:
            raise ValueError(
                f"strategy={name!r} trains the layers below a head, but only "
                f"{list(names)} can train. Use strategy='full'."
            )
        return Strategy(name, [Phase(alone, rate=rate)], reason, *state)
    if len(names) == 1:
        reason = "because only one layer group can train"
        return Strategy("probe", [Phase(alone, rate=rate)], reason, *state)
    if name == "full" or (name == "lora" and head == NONE):
        return Strategy(name, [Phase(tuple(names))], reason, False, head == NEW)
    if epochs <= first:
        raise ValueError(
            f"epochs={epochs} is too few for the strategy {name!r} ({reason}), which "
            "trains only the head in the first epochs. Use at least 2 epochs, or "
            "strategy='probe' or 'full'."
        )
    phases = [Phase(alone, first, rate)] if first else []
    if name in ("lp-ft", "lora"):
        return Strategy(name, [*phases, Phase(tuple(names))], reason, *state)
    unfrozen = len(names) - 1 - lowest
    steps = min(unfrozen, epochs - first)
    for step in range(1, steps + 1):
        count = math.ceil(unfrozen * step / steps)
        phases.append(Phase(tuple(names[-1 - count :]), 1))
    phases[-1] = Phase(phases[-1].groups)
    return Strategy(name, phases, reason, *state)


def _by_labels(labels: int, groups: int) -> tuple[str, int, str]:
    rule = (
        f"by a rule of thumb for {labels:,} labels: under {FEW:,} only the head, up "
        f"to {MANY:,} the upper half of the layer groups, above {MANY:,} all groups"
    )
    if labels < FEW:
        return "probe", 0, rule
    # With two groups, the upper half is the head only, but one more group must train.
    lowest = max(0, min(groups // 2, groups - 2))
    return "gradual", lowest if labels <= MANY else 0, rule
