"""Train a model with a new head on the source, before it is adapted."""

from __future__ import annotations

import keras

from keras_transfer import _keras
from keras_transfer.backbones.features import features
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.fine_tuning.adaptation.parts import Parts
from keras_transfer.fine_tuning.fine_tune import fine_tune
from keras_transfer.fine_tuning.new_head import all_new
from keras_transfer.fine_tuning.new_head import head_state
from keras_transfer.fine_tuning.new_head import NEW


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
    # A functional model, whose features can be cached, without the preprocessor of a
    # Task, because the texts are preprocessed already.
    body = features(parts.feature_extractor)
    inputs = body.inputs[0] if isinstance(body, keras.Sequential) else body.input
    network = keras.Model(inputs, parts.label_head(body.outputs[0]))
    groups = layer_groups(network)
    # A head without biases looks new, but not if the optimizer has trained it.
    steps = _keras.value(_keras.steps_taken(model.optimizer))
    if steps > 0 or head_state(groups) != NEW:
        return ""
    arguments = _keras.compile_arguments(model)
    with _keras.scope(model):
        optimizer = _keras.inner_optimizer(model.optimizer)
        new = type(optimizer).from_config(optimizer.get_config())
        network.compile(new, loss=arguments["loss"])
    if all_new(groups):
        x, y, *weights = source
        network.fit(
            x,
            y,
            sample_weight=(weights or [None])[0],
            epochs=epochs,
            verbose=verbose,
        )
        return "All layers are new, so the model was first trained on the source."
    flags = _keras.flags(network), [each.trainable for each in network.weights]
    fine_tune(network, source, epochs=epochs, budget=0.0, verbose=verbose)
    _keras.set_flags(network, *flags)
    return "The head is new, so the model was first fine-tuned on the source."
