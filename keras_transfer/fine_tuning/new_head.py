"""Whether the last layer group of a model is a head, and whether it is new."""

import numpy as np

from keras_transfer import _keras
from keras_transfer.backbones.groups import LayerGroup
from keras_transfer.backbones.groups import LayerGroups

NEW = "new"  # a head that was not trained yet
TRAINED = "trained"  # a head with weights of an earlier training
NONE = "none"  # no head, because the last group is a block of the backbone


def head_state(groups: LayerGroups) -> str:
    """Return NEW, TRAINED or NONE for the last layer group of a model.

    A head is the layers after the backbone, or a single last layer. A language model
    with tied embeddings and a U-Net have no head. Their last group is a pretrained
    block.

    A head is new if all its biases, scales and statistics have initial values: each is
    0, 1 or one constant. An update changes these values, and pretrained layers have
    other values. A head without biases, scales and statistics, such as a Dense layer
    without bias, counts as new.
    """
    head = groups[-1]
    if head.name != "head" and len(head.layers) > 1:
        return NONE
    return NEW if _is_new(head) else TRAINED


def all_new(groups: LayerGroups) -> bool:
    """Return whether no layer group was trained yet.

    A model without biases, scales and statistics below its head does not show it, and
    counts as trained.
    """
    below = [each for group in groups[:-1] for each in group.variables]
    shows = any(len(variable.shape) < 2 for variable in below)
    return shows and all(map(_is_new, groups))


def _is_new(group: LayerGroup) -> bool:
    vectors = [variable for variable in group.variables if len(variable.shape) < 2]
    for variable in vectors:
        values = _keras.value(variable)
        constant = values.size > 1 and (values == values.flat[0]).all()
        if not constant and not np.isin(values, (0, 1)).all():
            return False
    return True
