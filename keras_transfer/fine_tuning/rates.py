"""The learning rates of a run of fine_tune: by layer group, and over the updates."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

import keras

from keras_transfer import _keras
from keras_transfer.adapters.switching import attached
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.backbones.groups import UNUSED
from keras_transfer.fine_tuning.strategies import RECIPE
from keras_transfer.fine_tuning.thaw_schedule import ThawSchedule
from keras_transfer.optimizers.discriminative import Discriminative
from keras_transfer.optimizers.discriminative import discriminative
from keras_transfer.optimizers.discriminative import with_rate_table
from keras_transfer.optimizers.schedules import SlantedTriangular

# Pretrained groups, and a head that has converged, train at a share of the rate that
# suits a new head. With AdamW(1e-3) this is 3e-4, measured on networks of 2 to 23
# million parameters, and 5e-5 for networks with more than `LARGE`: the paper of BERT
# fine-tunes 110 million at 2e-5 to 5e-5, and that of ConvNeXt 89 million at 5e-5.
PRETRAINED_SHARE = 0.3
LARGE_SHARE = 0.05
LARGE = 60_000_000
EARLIER_SHARES = {1: 0.1, 2: 0.2}  # in runs of earlier recipes
# The weights of an adapter are new, and need a higher rate than pretrained ones.
ADAPTER_SHARE = 1.0
WARMUP_SHARE = 0.1  # of the updates after the first thaw

# In runs of earlier versions the stem trained at this share, and the groups between at
# equal ratios.
EARLIER_STEM_SHARE = 0.01


def default_share(model: keras.Model, recipe: int = RECIPE) -> float:
    """Return the share of the learning rate at which the groups of a model train."""
    if attached(model):
        return ADAPTER_SHARE
    count = sum(math.prod(weight.shape) for weight in model.weights)
    if count > LARGE and recipe != 1:
        return LARGE_SHARE
    return EARLIER_SHARES.get(recipe, PRETRAINED_SHARE)


def set_rates(
    model: keras.Model,
    groups: LayerGroups,
    *,
    share: float,
    new_head: bool,
    batches: int | None,
    thaws: Sequence[int] = (),
) -> None:
    """Set smaller rates for what is pretrained, and a schedule.

    Args:
        model: A compiled model. A `discriminative` optimizer keeps its factors, and an
            optimizer with a schedule keeps its schedule.
        groups: The layer groups of `model`.
        share: Share of the learning rate at which all groups train.
        new_head: Whether the head has the rate itself, not the share.
        batches: Length of the schedule in batches, or None to set no schedule.
        thaws: The batches at which phases begin that unfreeze groups.

    Raises:
        ValueError: If the optimizer cannot have factors.
    """
    names = [name for name in groups.names if name != UNUSED]
    rates = dict.fromkeys(names, share)
    if new_head:
        rates[names[-1]] = 1.0
    _replace(model, groups, batches, thaws, rates=rates)


def set_earlier_rates(
    model: keras.Model, groups: LayerGroups, batches: int | None
) -> None:
    """Set the rates of a run that an earlier version began."""
    used = [name for name in groups.names if name != UNUSED]
    decay = EARLIER_STEM_SHARE ** (1 / max(1, len(used) - 1))
    _replace(model, groups, batches, (), layer_decay=decay)


def _replace(
    model: keras.Model,
    groups: LayerGroups,
    batches: int | None,
    thaws: Sequence[int],
    **factors: object,
) -> None:
    optimizer = _keras.inner_optimizer(model.optimizer)
    with _keras.scope(model):
        if isinstance(optimizer, Discriminative):
            # A copy, so the user's optimizer is unchanged if training fails.
            table = optimizer.rate_table.excluding(optimizer)
            optimizer = with_rate_table(optimizer, table)
        else:
            optimizer = discriminative(optimizer, groups, **factors)
        rate = _keras.settings(optimizer)["learning_rate"]
        if batches is not None and isinstance(rate, numbers.Real):
            accumulated = optimizer.gradient_accumulation_steps or 1
            updates = max(1, batches // accumulated)
            thaws = [thaw // accumulated for thaw in thaws]
            schedule = update_schedule(float(rate), updates, thaws)
            table = optimizer.rate_table.excluding(optimizer)
            optimizer = with_rate_table(optimizer, table, learning_rate=schedule)
    _keras.replace_optimizer(model, optimizer)


def update_schedule(
    rate: float, updates: int, thaws: Sequence[int]
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return the learning rate of each update, with a warm-up after each of `thaws`."""
    if not thaws:
        return SlantedTriangular(rate, updates)
    warmup = max(1, round(WARMUP_SHARE * (updates - thaws[0])))
    return ThawSchedule(rate, updates, thaws, warmup)
