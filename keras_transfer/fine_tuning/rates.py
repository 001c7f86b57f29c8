"""The optimizer of fine_tune: smaller rates towards the stem, along a schedule."""

from __future__ import annotations

import numbers

import keras

from keras_transfer import _keras
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.optimizers.discriminative import Discriminative
from keras_transfer.optimizers.discriminative import discriminative
from keras_transfer.optimizers.discriminative import with_rate_table
from keras_transfer.optimizers.schedules import SlantedTriangular

# The stem learns at this share of the head's rate, and the groups between in equal
# ratios: the rule of fastai's `fine_tune`.
STEM_SHARE = 0.01


def give_slanted_rates(
    model: keras.Model, groups: LayerGroups, batches: int | None
) -> None:
    """Give a compiled model rates by layer group, along a slanted triangle.

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
        if not isinstance(optimizer, Discriminative):
            depth = max(1, len(groups) - 1)
            decay = STEM_SHARE ** (1 / depth)
            optimizer = discriminative(optimizer, groups, decay=decay)
        rate = _keras.settings(optimizer)["learning_rate"]
        if batches is not None and isinstance(rate, numbers.Real):
            # The schedule counts updates.
            updates = batches // (optimizer.gradient_accumulation_steps or 1)
            schedule = SlantedTriangular(float(rate), max(1, updates))
            table = optimizer.rate_table.excluding(optimizer)
            optimizer = with_rate_table(optimizer, table, learning_rate=schedule)
    _keras.replace_optimizer(model, optimizer)
