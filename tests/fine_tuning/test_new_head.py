"""Which models have a head, and when a head is new."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_transfer as kt
from keras_transfer.fine_tuning.new_head import head_state
from keras_transfer.fine_tuning.new_head import NEW
from keras_transfer.fine_tuning.new_head import NONE
from keras_transfer.fine_tuning.new_head import TRAINED
from tests import tiny


def classifier(**settings):
    stack = [keras.Input((6,)), tiny.mlp(widths=(5, 4)), layers.BatchNormalization()]
    return keras.Sequential([*stack, layers.Dense(3, **settings)])


def u_net():
    inputs = keras.Input((8, 8, 3))
    x = skip = layers.Conv2D(4, 3, padding="same", name="block_1_conv")(inputs)
    x = layers.Conv2D(4, 3, padding="same", name="block_2_conv")(layers.MaxPool2D()(x))
    x = layers.Concatenate()([layers.UpSampling2D()(x), skip])
    x = layers.Conv2D(4, 3, padding="same", name="block_3_conv")(x)
    return keras.Model(inputs, layers.Conv2D(2, 1, name="mask")(x))


def recurrent_language_model():
    inputs = keras.Input((5,))
    x = layers.LSTM(4, return_sequences=True)(layers.Embedding(9, 4)(inputs))
    return keras.Model(inputs, layers.Dense(9)(x))


def state_of(model):
    return head_state(kt.layer_groups(model))


@pytest.mark.parametrize(
    "make, state",
    [
        (classifier, NEW),
        (lambda: classifier(use_bias=False), NEW),
        (lambda: classifier(bias_initializer=keras.initializers.Constant(-4.6)), NEW),
        (lambda: kt.models.TransferClassifier(tiny.mlp(), 3), NEW),
        (recurrent_language_model, NEW),
        (u_net, NONE),
        (lambda: tiny.bert(num_layers=2), NONE),
    ],
)
def test_the_state_of_the_head(make, state):
    assert state_of(make()) == state


@pytest.mark.slow
def test_a_step_makes_a_head_trained():
    for make in (classifier, recurrent_language_model):
        model = make()
        model.compile("sgd", "mse", jit_compile=False)
        x = np.ones((4, *model.input_shape[1:]))
        model.fit(x, np.ones((4, *model.compute_output_shape(x.shape)[1:])), verbose=0)
        assert state_of(model) == TRAINED


@pytest.mark.slow
def test_only_a_new_head_that_cannot_converge_trains_at_ten_times_the_rate():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rng = np.random.default_rng(0)

    def rates(model, x, y, **settings):
        model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
        seen = []

        class Seen(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                seen.append(float(self.model.optimizer._common_factor))

        settings = dict(epochs=2, verbose=0, callbacks=[Seen()]) | settings
        kt.fine_tune(model, (x, y), **settings)
        return seen

    class Live(keras.Model):
        """A model with its own step, so its features are not cached."""

        def train_step(self, data):
            return super().train_step(data)

    x, y = rng.normal(size=(6, 6)), np.arange(6) % 3
    model = classifier()
    model = Live(model.inputs, model.outputs)
    assert rates(model, x, y, strategy="lp-ft") == [10.0, 1.0]
    assert rates(model, x, y, strategy="lp-ft") == [1.0, 1.0]
    assert rates(classifier(), x, y, strategy="lp-ft") == [1.0, 1.0]
    assert rates(model, x, y, strategy="auto") == [1.0, 1.0]
    x, y = rng.normal(size=(6, 8, 8, 3)), rng.integers(0, 2, (6, 8, 8))
    model = u_net()
    assert rates(model, x, y, strategy="auto") == [1.0, 1.0]
    assert len(model.trainable_variables) == len(model.weights)
    assert rates(model, x, y, strategy="lp-ft") == [1.0, 1.0]
