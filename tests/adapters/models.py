"""Tiny models, inputs and helpers for the tests of adapters."""

import keras
import numpy as np

from keras_transfer._keras import flat_layers
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.switching import own_places
from tests import tiny
from tests.contracts.compare import array


def tokens(rows=8, words=64, length=8):
    """Return the inputs of a tiny BERT."""
    ids = np.random.default_rng(0).integers(1, words, (rows, length))
    mask = np.ones_like(ids)
    mask[::2, -2:] = 0
    return {
        "token_ids": ids.astype("int32"),
        "segment_ids": np.zeros_like(ids, "int32"),
        "padding_mask": mask.astype("int32"),
    }


def images(rows=4, size=16):
    """Return RGB images."""
    shape = (rows, size, size, 3)
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def nested(num_layers=2):
    """Return a classifier on a nested BERT, without randomness in training."""
    backbone = tiny.bert(num_layers=num_layers, dropout=0.0, name="backbone")
    head = keras.layers.Dense(3, name="logits")
    return keras.Model(backbone.input, head(backbone(backbone.input)["pooled_output"]))


def flat():
    """Return a classifier whose graph contains the layers of BERT directly."""
    backbone = tiny.bert(num_layers=2, dropout=0.0, name="backbone")
    head = keras.layers.Dense(3, name="logits")
    return keras.Model(backbone.input, head(backbone.output["pooled_output"]))


def task():
    """Return a keras-hub Task without dropout."""
    import keras_hub

    backbone = tiny.bert(num_layers=2, dropout=0.0, name="backbone")
    return keras_hub.models.BertTextClassifier(
        backbone=backbone, num_classes=3, dropout=0.0
    )


def compiled(model, rate=0.01, **kwargs):
    """Return `model`, compiled for labels, without XLA by default."""
    kwargs = dict(jit_compile=False) | kwargs
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, **kwargs)
    return model


def labels(rows=8):
    """Return one label for each row."""
    return np.arange(rows) % 3


def disturb(model, scale=0.3, name=None):
    """Give the pairs fixed values that change the outputs."""
    rng = np.random.default_rng(3)
    for _, part in all_parts(model):
        if name in (None, part.name) and not part.replaces:
            for variable in part.named_weights.values():
                variable.assign(rng.normal(0, scale, variable.shape))
    return model


def disturb_head(model, name="default", seed=4):
    """Change the values of the adapter's own layers."""
    rng = np.random.default_rng(seed)
    for _, _, part in own_places(model, name):
        for variable in part.named_weights.values():
            variable.assign(variable + rng.normal(0, 0.3, variable.shape))
    return model


def classes(model):
    """Return the classes of all layers of `model`."""
    return [type(layer) for layer in flat_layers(model)]


def trained_paths(model):
    """Return the ends of the paths of the trainable weights."""
    return sorted("/".join(v.path.split("/")[-3:]) for v in model.trainable_variables)


def base_values(model):
    """Return the values of all weights that belong to no part, by id."""
    own = {id(v) for _, part in all_parts(model) for v in part.weights}
    return {id(v): array(v) for v in model.weights if id(v) not in own}
