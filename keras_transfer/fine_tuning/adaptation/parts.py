"""A copy of a classifier, cut into its feature extractor and its label head."""

from __future__ import annotations

from typing import NamedTuple

import keras

from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.fine_tuning.cut_at_head import cut_at_head
from keras_transfer.fine_tuning.inputs import output_of
from keras_transfer.models.two_domain_model import TwoDomainModel


class Parts(NamedTuple):
    """A model, and the two parts of it that methods of domain adaptation train.

    The parts have the layers of the model, not copies.
    """

    model: keras.Model
    feature_extractor: keras.Model | FrozenBackbone
    label_head: keras.Layer


def cut(model: keras.Model) -> Parts:
    """Return the parts of a model, which share its layers.

    Raises:
        ValueError: If the model cannot be cut into features, which are one vector for
            each example, and a label head.
    """
    if isinstance(model, TwoDomainModel):
        return Parts(model, model.feature_extractor, model.label_head)
    output = output_of(model)
    try:
        if output is None or len(output) != 2:
            raise ValueError(
                "its output is not one vector of class scores for each example"
            )
        body, head = cut_at_head(model, layer_groups(model)[-1], random=True)
        if len(body.outputs) != 1 or len(body.outputs[0].shape) != 2:
            shapes = [tuple(each.shape) for each in body.outputs]
            raise ValueError(
                f"its features have the shapes {shapes}, not one vector for each "
                "example"
            )
    except ValueError as error:
        raise ValueError(
            f"The model {model.name!r} cannot be cut below its head: {error}. "
            "kt.adapt needs a functional or Sequential classifier with one output, "
            "such as kt.models.TransferClassifier, whose head follows a pooling or "
            "Flatten layer."
        ) from error
    return Parts(model, body, head)
