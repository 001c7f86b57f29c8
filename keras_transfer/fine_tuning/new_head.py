"""Whether the last layer group of a model is a head, and has been trained."""

import numpy as np

from keras_transfer import _keras
from keras_transfer.backbones.groups import LayerGroup
from keras_transfer.backbones.groups import LayerGroups

NEW = "new"  # a head that has made no step yet
TRAINED = "trained"  # a head with weights of an earlier training
NONE = "none"  # no head: the last group is a block of the backbone


def head_state(groups: LayerGroups) -> str:
    """Return NEW, TRAINED or NONE for the last layer group of a model.

    A head is what follows the backbone, or a single last layer. A language model with
    tied embeddings and a U-Net have none: their last group is a pretrained block.

    It is new if each of its biases, scales and statistics is still what initializers
    make of one: 0, 1, or one value throughout. An update changes that, and a pretrained
    layer has other values. A head that has none of these, such as a Dense layer without
    bias, is taken for new.
    """
    head = groups[-1]
    if head.name != "head" and len(head.layers) > 1:
        return NONE
    return NEW if _is_new(head) else TRAINED


def _is_new(group: LayerGroup) -> bool:
    vectors = [variable for variable in group.variables if len(variable.shape) < 2]
    for variable in vectors:
        values = _keras.value(variable)
        constant = values.size > 1 and (values == values.flat[0]).all()
        if not constant and not np.isin(values, (0, 1)).all():
            return False
    return True
