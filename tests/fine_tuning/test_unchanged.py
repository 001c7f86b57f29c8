"""After an error the model is unchanged. After an interrupt it stays trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer import _keras
from keras_transfer.data.class_names import remember_class_names
from tests.contracts.compare import assert_close
from tests.fine_tuning.model_state import state

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X = np.random.default_rng(0).normal(size=(12, 6)).astype("float32")
Y = np.arange(12) % 2


def make(optimizer=None):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((6,))
    x = layers.Dense(5, name="block_1")(inputs)
    x = layers.BatchNormalization(name="block_2_norm")(x)
    x = layers.Dropout(0.5)(layers.Dense(4, name="block_2")(x))
    model = keras.Model(inputs, layers.Dense(2, name="logits")(x))
    model.get_layer("block_1").trainable = False
    model.compile(optimizer or keras.optimizers.Adam(0.01), SPARSE, jit_compile=False)
    return model


def tune(model, data=(X, Y), **settings):
    settings = dict(epochs=3, strategy="lp-ft", batch_size=4, verbose=0) | settings
    return kt.fine_tune(model, data, **settings)


def failing(error, epoch, when="on_train_batch_end"):
    """Return a callback that raises in an epoch, after its second batch."""

    class Failing(keras.callbacks.Callback):
        now = 0

        def on_epoch_begin(self, epoch, logs=None):
            self.now = epoch

    def fail(self, batch, logs=None):
        if self.now == epoch and batch > 0:
            raise error

    setattr(Failing, when, fail)
    return Failing()


@pytest.mark.slow
@pytest.mark.parametrize("trained", [True, False], ids=["trained head", "new head"])
@pytest.mark.parametrize("epoch", [0, 2])
def test_an_error_in_training_leaves_the_model_unchanged(epoch, trained):
    model = make()
    if trained:  # such a head trains alone in the first epoch
        model.get_layer("logits").bias.assign([0.1, 0.2])
    model.evaluate(X, Y, verbose=0)
    remember_class_names(model, ["a", "b"])
    (before, values) = state(model)
    words = np.array(["yes", "no"])[Y]
    with pytest.raises(RuntimeError, match="the disk is full"):
        tune(
            model,
            (X, words),
            validation_data=(X, words),
            callbacks=failing(RuntimeError("the disk is full"), epoch),
        )
    after, same = state(model)
    assert after == before
    assert_close(same, values)
    assert model.metrics[0].result() == 0
    history = tune(model)
    assert history.history["phase"] == ([0, 1, 1] if trained else [0, 0, 0])


@pytest.mark.slow
def test_an_error_leaves_a_discriminative_optimizer_unchanged():
    model = make()
    rates = keras.optimizers.schedules.CosineDecay(0.01, 9)
    optimizer = keras.optimizers.Adam(rates)
    optimizer = kt.optimizers.discriminative(optimizer, model, layer_decay=0.5)
    model.compile(optimizer, SPARSE, jit_compile=False)
    with pytest.raises(RuntimeError):
        tune(model, callbacks=failing(RuntimeError("no"), 2))
    assert model.optimizer is optimizer and not optimizer.built
    tune(model)
    assert model.optimizer.rates == optimizer.rates


def test_an_interrupt_keeps_trained_weights_and_removes_the_phase_rate():
    model = make()
    (_, values) = state(model)
    rows = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    rows = rows.map(lambda x, y: (x + tf.random.normal(x.shape[1:]), y))  # no cache
    with pytest.raises(KeyboardInterrupt):
        tune(model, rows, batch_size=None, callbacks=failing(KeyboardInterrupt(), 0))
    moved = [
        weight.path
        for weight, value in zip(model.variables, values, strict=True)
        if not np.array_equal(_keras.value(weight), value)
    ]
    assert "logits/kernel" in moved
    assert _keras.value(model.optimizer._common_factor) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["lp-ft", "full"])
def test_a_dataset_that_makes_weights_nan_raises_and_is_undone(how):
    model = make()
    (before, values) = state(model)
    x = np.where(np.arange(12)[:, None] == 7, np.nan, X)
    batches = tf.data.Dataset.from_tensor_slices((x, Y)).batch(4)
    with pytest.raises(ValueError, match="In epoch 0, .* became NaN.*or labels"):
        tune(model, batches, batch_size=None, strategy=how)
    after, same = state(model)
    assert after == before
    assert_close(same, values)


def test_with_terminate_on_nan_training_stops_without_an_error():
    model = make()
    batches = tf.data.Dataset.from_tensor_slices((X * np.nan, Y)).batch(4)
    callbacks = [keras.callbacks.TerminateOnNaN()]
    history = tune(model, batches, batch_size=None, callbacks=callbacks)
    assert len(history.epoch) == 1
