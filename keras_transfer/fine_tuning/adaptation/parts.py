"""A copy of a classifier, cut into its feature extractor and its label head."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import keras

from keras_transfer import _keras
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.data.class_names import class_names_of
from keras_transfer.data.class_names import remember_class_names
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


def copy_of(model: keras.Model) -> keras.Model:
    """Return a copy of a model, not compiled, with the same weights and flags.

    Raises:
        ValueError: If the config of the model does not make the same model again.
    """
    with _keras.scope(model):
        try:
            if type(model).__module__.partition(".")[0] == "keras":
                # Also copies layers that are not registered with Keras.
                with _not_compiled(model):
                    copy = keras.models.clone_model(model)
                copy.dtype_policy = model.dtype_policy
            else:
                copy = type(model).from_config(model.get_config())
            if len(copy.weights) != len(model.weights):
                raise ValueError(
                    f"the copy has {len(copy.weights)} weights, not "
                    f"{len(model.weights)}"
                )
            copy.set_weights(model.get_weights())
            flags = _keras.flags(model), [each.trainable for each in model.weights]
            _keras.set_flags(copy, *flags)
        except Exception as error:
            raise ValueError(
                f"The model {model.name!r} cannot be copied from its config: {error}. "
                "Give each of its custom layers a get_config, and merge its adapters "
                "with kt.adapters.merge."
            ) from error
    if getattr(model, "preprocessor", None) is not None:
        # Its config has no vocabulary.
        copy.preprocessor = model.preprocessor
    remember_class_names(copy, class_names_of(model))
    return copy


@contextlib.contextmanager
def _not_compiled(model: keras.Model) -> Iterator[None]:
    """Keep Keras from copying the loss, metrics and optimizer of a model."""
    compiled, model.compiled = model.compiled, False
    try:
        yield
    finally:
        model.compiled = compiled


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
