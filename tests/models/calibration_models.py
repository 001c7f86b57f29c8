"""Classifiers that are too certain, with known temperatures, for the tests."""

import functools

import keras
import numpy as np
from scipy.special import softmax

from tests import tiny

TEMPERATURE = 4.0
SPARSE = keras.losses.SparseCategoricalCrossentropy


@functools.cache
def drawn(count=600, classes=3, seed=0):
    """Return inputs that are right log probabilities, and labels drawn from them."""
    random = np.random.default_rng(seed)
    z = random.normal(size=(count, classes)) * 2
    p = softmax(z, axis=1)
    y = (p.cumsum(1) < random.uniform(size=(count, 1))).sum(1)
    return z.astype("float32"), y


def certain(classes=3, *, activation=None, name="certain"):
    """Return a model whose logits are `TEMPERATURE` times its inputs."""
    dense = keras.layers.Dense(
        classes,
        activation,
        kernel_initializer=keras.initializers.Identity(TEMPERATURE),
        name="scores",
    )
    model = keras.Sequential([keras.Input((classes,)), dense], name=name)
    loss = SPARSE(from_logits=activation is None)
    model.compile("sgd", loss, metrics=["accuracy"], jit_compile=False)
    return model


def one_unit(activation=None):
    """Return a model with one output unit for two classes, too certain."""
    x, y = drawn(classes=2)
    dense = keras.layers.Dense(1, activation, use_bias=False)
    model = keras.Sequential([keras.Input((2,)), dense])
    dense.kernel.assign([[-TEMPERATURE], [TEMPERATURE]])
    loss = keras.losses.BinaryCrossentropy(from_logits=activation is None)
    model.compile("sgd", loss, metrics=["accuracy"], jit_compile=False)
    return model, (x, y)


@functools.cache
def task():
    """Return a keras-hub Task from raw texts to 2 classes, with texts and labels."""
    import keras_hub

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=words)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
        tokenizer, sequence_length=6
    )
    keras.utils.set_random_seed(0)
    model = keras_hub.models.BertTextClassifier(
        tiny.bert(num_layers=1, vocabulary_size=8, dropout=0.0),
        num_classes=2,
        preprocessor=preprocessor,
    )
    model.compile(
        keras.optimizers.Adam(0.01),
        SPARSE(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(words[5:], size=3)) for _ in range(60)]
    labels = np.array([text.count("good") > 0 for text in texts]).astype(int)
    labels[::7] = 1 - labels[::7]
    model.fit(texts, labels, epochs=8, batch_size=20, verbose=0, shuffle=False)
    return model, texts, labels
