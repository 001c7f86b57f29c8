"""Fine-tuning strategies: which layer groups train in which epochs, at which rate."""

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

# Numbers of labels at which "auto" changes the strategy. This is a rule of thumb and
# not from a paper.
FEW = 500
MANY = 5000

# A head can train at a higher rate on fixed features than on changing features. It
# needs this rate to converge in a few epochs.
ALONE_RATE = 10.0

# The stem trains at this share of the head's rate, and the groups between at equal
# ratios, as in fastai's `fine_tune`.
STEM_SHARE = 0.01


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
    """The name of a strategy, its phases, and why it was chosen."""

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
    """Return the strategy with this name. "auto" chooses by the number of labels.

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

    Returns:
        A `Strategy`. Its last phase has no end.

    Raises:
        ValueError: If the strategy is unknown, needs more epochs, or would unfreeze a
            backbone that cannot be unfrozen.
    """
    one_of("strategy", name, STRATEGIES)
    reason = "as requested"
    lowest = 0  # the lowest group that any phase trains
    rate = ALONE_RATE if head == NEW else 1.0
    if name == "auto" and frozen:
        name, reason = "probe", AUTO_FROZEN[frozen]
    elif name == "auto" and head == NONE:
        name = "full"
        reason = "because there is no new head that could damage the layers below it"
    elif name == "auto":
        name, lowest, reason = _by_labels(labels, len(names))
    alone = (names[-1],)
    if name == "probe":
        return Strategy(name, [Phase(alone, rate=rate)], reason)
    if frozen:
        raise ValueError(
            f"strategy={name!r} unfreezes the backbone, but {FROZEN[frozen]}"
        )
    if len(names) == 1:
        reason = "because only one layer group can train"
        return Strategy("probe", [Phase(alone, rate=rate)], reason)
    if name == "full":
        return Strategy(name, [Phase(tuple(names))], reason)
    if epochs < 2:
        raise ValueError(
            f"epochs={epochs} is too few for the strategy {name!r} ({reason}), which "
            "trains only the head in the first epochs. Use at least 2 epochs, or "
            "strategy='probe' or 'full'."
        )
    first = max(1, epochs // 3)
    phases = [Phase(alone, first, rate)]
    if name == "lp-ft":
        return Strategy(name, [*phases, Phase(tuple(names))], reason)
    unfrozen = len(names) - 1 - lowest
    steps = min(unfrozen, epochs - first)
    for step in range(1, steps + 1):
        count = math.ceil(unfrozen * step / steps)
        phases.append(Phase(tuple(names[-1 - count :]), 1))
    phases[-1] = Phase(phases[-1].groups)
    return Strategy(name, phases, reason)


def give_slanted_rates(
    model: keras.Model, groups: LayerGroups, batches: int | None
) -> None:
    """Set smaller rates toward the stem, and a slanted triangular schedule.

    Args:
        model: A compiled model. A `discriminative` optimizer keeps its factors, and an
            optimizer with a schedule keeps its schedule.
        groups: The layer groups of `model`.
        batches: Length of the schedule in batches, or None to set no schedule.

    Raises:
        ValueError: If the optimizer cannot have factors.
    """
    optimizer = _keras.inner_optimizer(model.optimizer)
    with _keras.scope(model):
        if isinstance(optimizer, Discriminative):
            # A copy, so the user's optimizer is unchanged if training fails.
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
        f"by a rule of thumb for {labels:,} labels: under {FEW:,} only the head, up "
        f"to {MANY:,} the upper half of the layer groups, above {MANY:,} all groups"
    )
    if labels < FEW:
        return "probe", 0, rule
    # With two groups, the upper half is the head only, but one more group must train.
    lowest = max(0, min(groups // 2, groups - 2))
    return "gradual", lowest if labels <= MANY else 0, rule
