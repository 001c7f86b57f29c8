"""Strategies of fine-tuning: which layer groups learn in which epochs, how fast."""

import math
import numbers
from collections.abc import Sequence
from typing import NamedTuple

import keras

from keras_transfer import _keras
from keras_transfer._arguments import one_of
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.backbones.groups import UNUSED
from keras_transfer.callbacks.phases import Phase
from keras_transfer.fine_tuning.new_head import NEW
from keras_transfer.fine_tuning.new_head import NONE
from keras_transfer.optimizers.discriminative import Discriminative
from keras_transfer.optimizers.discriminative import discriminative
from keras_transfer.optimizers.discriminative import with_rate_table
from keras_transfer.optimizers.schedules import SlantedTriangular

STRATEGIES = ("auto", "probe", "lp-ft", "gradual", "full")

# Numbers of labels at which "auto" changes its mind: a rule of thumb, no paper's.
FEW = 500
MANY = 5000

# A head on features that stay as they are stands a higher rate than one on features
# that move, and needs it, to get far in few epochs.
ALONE_RATE = 10.0

# The stem learns at this share of the head's rate, and the groups between in equal
# ratios: the rule of fastai's `fine_tune`.
STEM_SHARE = 0.01


# Why a backbone does not thaw.
AUTO_FROZEN = {
    "wrapped": "the backbone is a FrozenBackbone",
    "flags": "all below the head is kept frozen",
}
FROZEN = {
    "wrapped": "the model holds a FrozenBackbone, which never thaws. Build the model "
    "on its `FrozenBackbone.layer`, or take strategy='probe'.",
    "flags": "all of it is frozen, by `frozen=` or since layer.trainable is False, as "
    "a file may have it too, and is kept so. Set `trainable = True` on the backbone "
    "and compile again, name fewer groups, or take strategy='probe'.",
}


class Strategy(NamedTuple):
    """A strategy by name, its phases, and why it was chosen."""

    name: str
    phases: list[Phase]
    reason: str


def choose_strategy(
    name: str,
    names: Sequence[str],
    epochs: int,
    labels: int,
    *,
    frozen: str | None = None,
    head: str = NEW,
) -> Strategy:
    """Return the strategy of a name, and for "auto" the one that suits the labels.

    Args:
        name: One of `STRATEGIES`.
        names: The layer groups that can learn, stem first, head last.
        epochs: Epochs of all phases together.
        labels: Number of labeled examples.
        frozen: Why the backbone does not thaw: "wrapped", in a FrozenBackbone, or
            "flags", as the user froze it. Default None: it does.
        head: Whether the last group is a head, and a new one, as of `head_state`.
            Only a new head learns at a higher rate while it is alone.

    Returns:
        A `Strategy`; its last phase has no end.

    Raises:
        ValueError: If the strategy is unknown, has more phases than epochs, or would
            thaw what can never thaw.
    """
    one_of("strategy", name, STRATEGIES)
    reason = "as asked"
    lowest = 0  # the first group that learns at any time
    rate = ALONE_RATE if head == NEW else 1.0
    if name == "auto" and frozen:
        name, reason = "probe", AUTO_FROZEN[frozen]
    elif name == "auto" and head == NONE:
        name, reason = "full", "there is no new head that would spoil what is below it"
    elif name == "auto":
        name, lowest, reason = _by_labels(labels, len(names))
    alone = (names[-1],)
    if name == "probe":
        return Strategy(name, [Phase(alone, rate=rate)], reason)
    if frozen:
        raise ValueError(f"strategy={name!r} thaws the backbone, but {FROZEN[frozen]}")
    if len(names) == 1:
        reason = "only one layer group can learn"
        return Strategy("probe", [Phase(alone, rate=rate)], reason)
    if name == "full":
        return Strategy(name, [Phase(tuple(names))], reason)
    if epochs < 2:
        raise ValueError(
            f"epochs={epochs} cannot hold the strategy {name!r} ({reason}): the "
            "head learns alone first. Give 2 epochs or more, or take strategy='probe' "
            "or 'full'."
        )
    first = max(1, epochs // 3)
    phases = [Phase(alone, first, rate)]
    if name == "lp-ft":
        return Strategy(name, [*phases, Phase(tuple(names))], reason)
    thawed = len(names) - 1 - lowest
    steps = min(thawed, epochs - first)
    for step in range(1, steps + 1):
        count = math.ceil(thawed * step / steps)
        phases.append(Phase(tuple(names[-1 - count :]), 1))
    phases[-1] = Phase(phases[-1].groups)
    return Strategy(name, phases, reason)


def give_slanted_rates(
    model: keras.Model, groups: LayerGroups, batches: int | None
) -> None:
    """Give a compiled model smaller rates toward the stem, along a slanted triangle.

    Args:
        model: A compiled model. A `discriminative` optimizer keeps its factors, and
            a schedule of its own stays.
        groups: The layer groups of `model`.
        batches: Length of the schedule in batches; None sets no schedule.

    Raises:
        ValueError: If the optimizer cannot have factors.
    """
    optimizer = _keras.inner_optimizer(model.optimizer)
    with _keras.scope(model):
        if isinstance(optimizer, Discriminative):
            # A copy, so that the one of the user is as it was if training fails.
            table = optimizer.rate_table.excluding(optimizer)
            optimizer = with_rate_table(optimizer, table)
        else:
            used = [name for name in groups.names if name != UNUSED]
            depth = max(1, len(used) - 1)
            decay = STEM_SHARE ** (1 / depth)
            optimizer = discriminative(optimizer, groups, layer_decay=decay)
        rate = _keras.settings(optimizer)["learning_rate"]
        if batches is not None and isinstance(rate, numbers.Real):
            # The schedule counts updates.
            updates = batches // (optimizer.gradient_accumulation_steps or 1)
            schedule = SlantedTriangular(float(rate), max(1, updates))
            table = optimizer.rate_table.excluding(optimizer)
            optimizer = with_rate_table(optimizer, table, learning_rate=schedule)
    _keras.replace_optimizer(model, optimizer)


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
