"""Train steps suit a TPU: static graphs, and bfloat16 with float32 adapters."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_transfer as kt
from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import all_parts
from tests import tiny
from tests.adapters import models
from tests.contracts.compare import fit
from tests.contracts.static_graph import assert_static

X = models.tokens()
Y = models.labels()


def compiled(model, wrap=None, **settings):
    adamw = keras.optimizers.AdamW(1e-3, weight_decay=0.01, **settings)
    optimizer = wrap(adamw, model) if wrap else adamw
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(True))
    optimizer.build(model.trainable_variables)
    return model


def classifier(dropout=0.1):
    backbone = tiny.bert(num_layers=1, dropout=dropout, name="backbone")
    return kt.models.TransferClassifier(backbone, num_classes=3)


@pytest.mark.slow
@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm"])
def test_discriminative(clip):
    model = compiled(classifier(), kt.optimizers.discriminative, **{clip: 0.1})
    assert_static(model, X, Y)


def test_lora():
    model = classifier()
    kt.adapters.LoRA(rank=2, dropout=0.1).attach(model)
    assert_static(compiled(model), X, Y)


@pytest.mark.slow
def test_each_phase_of_gradual_unfreezing():
    model = compiled(classifier())
    unfreezing = kt.callbacks.GradualUnfreezing(model)
    unfreezing.set_model(model)
    model.make_train_function()
    unfreezing.on_train_begin()
    learning = set()
    for epoch in range(len(unfreezing.phases)):
        unfreezing.on_epoch_begin(epoch)
        assert_static(model, X, Y)
        learning.add(len(model.trainable_variables))
    assert len(learning) == len(unfreezing.phases) > 2


def test_frozen_backbone():
    frozen = kt.backbones.FrozenBackbone(tiny.bert(num_layers=1))
    model = kt.models.TransferClassifier(frozen, num_classes=3)
    assert_static(compiled(model), X, Y)


@pytest.mark.parametrize(
    "function, fault",
    [
        (lambda x: tf.numpy_function(np.tanh, [x], tf.float32), "calls the host"),
        (lambda x: tf.boolean_mask(x, x[:, 0] > 0), "unknown before the step"),
    ],
)
def test_each_violation_is_found(function, fault):
    class Layer(layers.Layer):
        def call(self, x):
            return x + 0 * tf.reduce_sum(tf.reshape(function(x), [-1]))

        def compute_output_shape(self, shape):
            return shape

    model = keras.Sequential([keras.Input((6,)), layers.Dense(4), Layer()])
    model.add(layers.Dense(3))
    model = compiled(model)
    with pytest.raises(AssertionError, match=fault):
        assert_static(model, np.ones((8, 6), "float32"), Y)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_lora_is_float32_in_bfloat16_and_trains(policy):
    keras.config.set_dtype_policy(policy)
    model = classifier(dropout=0.0)
    kt.adapters.LoRA(rank=2).attach(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # bfloat16 would round such small steps to 0.
    model.compile(keras.optimizers.SGD(1e-4), loss, run_eagerly=True)
    weights = [weight for _, part in all_parts(model) for weight in part.weights]
    assert {weight.dtype for weight in weights} == {"float32"}
    weights = [weight for weight in weights if weight.trainable]
    assert len(weights) == 4 + 2  # and the adapter's own head
    for weight in weights:
        if not _keras.value(weight).any():  # the second factor, the bias of the head
            weight.assign(keras.random.normal(weight.shape))
    before = [_keras.value(weight) for weight in weights]
    fit(model, X, Y)
    for old, weight in zip(before, weights, strict=True):
        new = _keras.value(weight)
        assert (new != old).any(), weight.path
        largest = np.abs(old).max()
        assert np.abs(new - old).max() < largest / 256  # half a step of bfloat16
