"""Train a model with a new head on the source, before it is adapted."""

from __future__ import annotations

import keras

from keras_transfer import _keras
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.fine_tuning.adaptation.parts import Parts
from keras_transfer.fine_tuning.fine_tune import fine_tune
from keras_transfer.fine_tuning.new_head import all_new
from keras_transfer.fine_tuning.new_head import head_state
from keras_transfer.fine_tuning.new_head import NEW
from keras_transfer.models.source_only import SourceOnly
from keras_transfer.models.two_domain_model import TwoDomainModel


def train_on_source(
    parts: Parts, model: keras.Model, source: tuple, epochs: int, verbose: int
) -> str:
    """Train the copied model if its head is new, and return what was done, or "".

    Args:
        parts: The copy and its parts.
        model: The model that was copied, with its optimizer.
        source: `(x, y)` or `(x, y, sample_weight)`.
        epochs: Epochs of the training.
        verbose: As in `fit`.
    """
    copy = parts.model
    wrapped = copy
    if isinstance(copy, TwoDomainModel):
        wrapped = SourceOnly(parts.feature_extractor, parts.label_head)
    groups = layer_groups(wrapped)
    if head_state(groups) != NEW:
        return ""
    arguments = _keras.compile_arguments(model)
    with _keras.scope(model):
        optimizer = _keras.inner_optimizer(model.optimizer)
        new = type(optimizer).from_config(optimizer.get_config())
        wrapped.compile(new, loss=arguments["loss"])
    if all_new(groups):
        x, y, *weights = source
        # Not the fit of a Task, which does not shuffle arrays.
        keras.Model.fit(
            wrapped,
            x,
            y,
            sample_weight=(weights or [None])[0],
            epochs=epochs,
            verbose=verbose,
        )
        return "All layers are new, so the model was first trained on the source."
    flags = _keras.flags(copy), [each.trainable for each in copy.weights]
    fine_tune(wrapped, source, epochs=epochs, budget=0.0, verbose=verbose)
    _keras.set_flags(copy, *flags)
    return "The head is new, so the model was first fine-tuned on the source."
