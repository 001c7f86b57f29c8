"""Batches that are too small for all replicas: filled up, or an error."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make(strategy):
    with strategy.scope():
        inputs = keras.Input((4, 4, 3))
        x = keras.layers.Conv2D(4, 3, name="block_1")(inputs)
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization()(x))
        model = keras.Model(inputs, keras.layers.Dense(2)(x))
        model.compile(keras.optimizers.Adam(0.01), SPARSE, jit_compile=False)
    return model


def data(count):
    x = np.random.default_rng(0).normal(size=(count, 4, 4, 3)).astype("float32")
    return x, np.arange(count) % 2


@pytest.mark.parametrize("how", ["full", "lp-ft"])
def test_a_last_batch_of_one_example_is_filled_up(strategy, how):
    history = kt.fine_tune(
        make(strategy),
        data(9),
        validation_data=data(5),
        batch_size=4,
        epochs=2,
        strategy=how,
        verbose=0,
    )
    assert np.isfinite(history.history["val_loss"]).all()


def test_a_dataset_with_a_batch_of_one_example_raises(strategy):
    model = make(strategy)
    batches = tf.data.Dataset.from_tensor_slices(data(9)).batch(4)
    with pytest.raises(ValueError, match="1 of 3 batches have 1 example.*'block_1'"):
        kt.fine_tune(model, batches, epochs=1, strategy="full", verbose=0)
    batches = tf.data.Dataset.from_tensor_slices(data(9)).batch(4, drop_remainder=True)
    kt.fine_tune(model, batches, epochs=1, strategy="full", verbose=0)


def test_a_model_that_accepts_empty_batches_does_not_raise(strategy):
    with strategy.scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.compile("adam", SPARSE, jit_compile=False)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    batches = tf.data.Dataset.from_tensor_slices((x, np.arange(5) % 2)).batch(4)
    history = kt.fine_tune(model, batches, epochs=1, strategy="full", verbose=0)
    assert np.isfinite(history.history["loss"]).all()
