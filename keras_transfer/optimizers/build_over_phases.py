"""Give a model an optimizer with slots for all variables that any phase trains."""

from collections.abc import Sequence

import keras

from keras_transfer import _keras
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.optimizers.discriminative import check_supported
from keras_transfer.optimizers.discriminative import Discriminative
from keras_transfer.optimizers.discriminative import with_rate_table
from keras_transfer.optimizers.rate_table import RateTable


def build_over_phases(
    model: keras.Model, union: Sequence[keras.Variable], groups: LayerGroups
) -> bool:
    """Replace the optimizer of `model` with a discriminative one, built over `union`.

    Args:
        model: A compiled model.
        union: The variables that any phase trains, in the order of the model.
        groups: The layer groups of `model`.

    Returns:
        True if the optimizer was replaced. Functions that were traced with the old
        optimizer are then out of date.

    Raises:
        ValueError: If the model is not compiled, or if its optimizer was created
            outside the tf.distribute scope of the model, does not support factors, or
            has made updates without slots for all of `union`. The model is then
            unchanged.
    """
    if not model.optimizer:
        raise ValueError(
            "The model has no optimizer, so it cannot train. Call model.compile() "
            "first."
        )
    old = _keras.inner_optimizer(model.optimizer)
    if not _keras.made_in_scope(old, model):
        raise ValueError(
            f"The {type(old).__name__} was created outside the tf.distribute scope of "
            "the model. Create the optimizer and call compile() inside "
            "`with strategy.scope():`."
        )
    ready = isinstance(old, Discriminative)
    known = {id(each) for each in _keras.trained_by(old)} if old.built else set()
    lacks = sum(id(each) not in known for each in union)
    if ready and not lacks:
        return False
    if not ready:
        check_supported(old)
    if _keras.value(old.iterations) > 0:
        raise ValueError(
            f"The {type(old).__name__} has made updates, but it has no slots for "
            f"{lacks} of the {len(union)} variables to train. A replacement would lose "
            "its moments. If you loaded the model from a file, load it with "
            "keras_transfer.resume(path), which keeps all slots. Otherwise call "
            "model.compile() with a new optimizer."
        )
    with _keras.scope(model):
        if ready:
            table = old.rate_table.excluding(old)
        else:
            table = RateTable.of(groups, dict.fromkeys(groups.names, 1.0), old)
        new = with_rate_table(old, table)
        new.build(union)
        _keras.replace_optimizer(model, new)
        model.optimizer.build(union)
    return True
