"""The models, with fixed weights, and the data of the golden files."""

import keras
import numpy as np

import keras_transfer as kt
from tests import tiny

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
BERT = dict(
    num_layers=1,
    hidden_dim=8,
    intermediate_dim=12,
    vocabulary_size=16,
    max_sequence_length=8,
    dropout=0.0,
    name="backbone",
)


def exact(model, scale=1.0):
    """Give all weights of `model` values that are the same on every machine."""
    for number, weight in enumerate(model.weights):
        count = int(np.prod(weight.shape))
        values = ((5 * np.arange(count) + 3 * number) % 23 - 11) / 32
        weight.assign(scale * values.reshape(weight.shape))
    return model


def bert(head=True, num_classes=3):
    """Return a classifier on a BERT with one block, or only the BERT."""
    backbone = tiny.bert(**BERT)
    if not head:
        return exact(backbone)
    logits = keras.layers.Dense(num_classes, name="logits")
    pooled = backbone(backbone.input)["pooled_output"]
    return exact(keras.Model(backbone.input, logits(pooled), name="classifier"))


def distil_bert():
    """Return a DistilBERT with one block, which needs no match for PEFT's files."""
    import keras_hub

    settings = {k: v for k, v in BERT.items() if k != "name"} | {"num_heads": 2}
    return exact(keras_hub.models.DistilBertBackbone(**settings))


def llama():
    """Return a Llama and inputs. Its untied output embedding has no gradient."""
    import keras_hub

    settings = dict(vocabulary_size=16, hidden_dim=8, intermediate_dim=12)
    heads = dict(num_layers=1, num_query_heads=2, num_key_value_heads=1)
    backbone = keras_hub.models.LlamaBackbone(**settings, **heads)
    inputs = tokens()
    del inputs["segment_ids"]
    return exact(backbone), inputs


def tokens(rows=4, length=6):
    """Return the inputs of BERT; every second row ends in padding."""
    ids = (7 * np.arange(rows * length).reshape(rows, length) % 15 + 1).astype("int32")
    mask = np.ones_like(ids)
    mask[::2, -2:] = 0
    return {
        "token_ids": ids * mask,
        "segment_ids": np.zeros_like(ids),
        "padding_mask": mask,
    }


def vectors(rows=8, width=6):
    """Return rows of numbers."""
    values = 5 * np.arange(rows * width) % 17 - 8
    return (values.reshape(rows, width) / 8).astype("float32")


def images(rows=3, size=8):
    """Return RGB images with values from 0 to 1."""
    return vectors(rows, size * size * 3).reshape(rows, size, size, 3) / 2 + 0.5


def labels(rows=8):
    """Return one of three classes for each row."""
    return np.arange(rows) % 3


def mlp():
    """Return a stack of three Dense layers with fixed weights."""
    return exact(tiny.mlp())


def pooled_bert():
    """Return the network of the cached features: a BERT and the mean of its tokens."""
    return kt.backbones.features(bert(head=False), "mean")


def classifier_of_run():
    """Return the compiled model of the runs of `fine_tune`."""
    backbone = tiny.mlp((5, 4))
    model = exact(kt.models.TransferClassifier(backbone, 3, dropout=0.2))
    model.compile(keras.optimizers.AdamW(0.01), LOGITS, metrics=["accuracy"])
    return model


def start_or_continue(model, directory, callbacks=(), pilot=False):
    """Start or continue the run of `fine_tune` in `directory`."""
    count = 48 if pilot else 16
    return kt.fine_tune(
        model,
        (vectors(count), labels(count)),
        validation_data=(vectors(6) / 2, labels(6)),
        epochs=6,
        strategy="auto" if pilot else "lp-ft",
        batch_size=8,
        directory=directory,
        callbacks=list(callbacks),
        verbose=0,
    )
