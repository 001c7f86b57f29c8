"""An adapter's own layers in graphs: losses, masks, and functions traced earlier."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import adapters
from tests.adapters import models
from tests.adapters.test_own_layer import lora
from tests.adapters.test_own_layer import model_of
from tests.adapters.test_own_layer import X
from tests.adapters.test_own_layer import Y
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close

LOSS = "sparse_categorical_crossentropy"


class WithLoss(keras.layers.Dense):
    """A Dense that adds the mean of its squared outputs to the losses."""

    def call(self, inputs, training=None):
        outputs = super().call(inputs)
        self.add_loss(keras.ops.mean(outputs**2))
        return outputs


class Shifted(keras.layers.Layer):
    """A layer with its own weight, and an embedding below it that sets the mask."""

    def build(self, shape):
        self.shift = self.add_weight(shape=(), initializer="zeros", name="shift")
        self.embedding = keras.layers.Embedding(9, 6, mask_zero=True, name="inner")
        self.embedding.build(shape)

    def call(self, inputs):
        return self.embedding(inputs + keras.ops.cast(self.shift, "int32"))


def with_loss():
    model = model_of(WithLoss(4, name="with_loss"))
    lora().attach(model, "first")
    lora().attach(model, "second")
    models.disturb_head(model, "first")
    model.compile("sgd", LOSS, jit_compile=False)
    return model


@pytest.mark.slow
def test_losses_added_by_the_layer():
    model, losses = with_loss(), {}
    for name in ("second", "first"):
        adapters.use(model, name)
        losses[name] = model.evaluate(X, Y, verbose=0)
        outputs = model.get_layer("with_loss").output
        inner = keras.Model(model.inputs[0], outputs)(X)
        model(X, training=False)
        assert np.isclose(float(model.losses[0]), np.mean(np.square(inner)), rtol=1e-5)
    assert abs(losses["first"] - losses["second"]) > 1e-3
    with adapters.disabled(model):
        assert np.isclose(model.evaluate(X, Y, verbose=0), losses["second"])
    assert np.isclose(model.evaluate(X, Y, verbose=0), losses["first"])


@pytest.mark.slow
def test_losses_after_disabled_include_the_adapter():
    model = with_loss()
    adapters.use(model, "first")
    with adapters.disabled(model):
        base = model.evaluate(X, Y, verbose=0)
    loss = model.evaluate(X, Y, verbose=0)
    assert abs(loss - base) > 1e-3
    adapters.use(model, "first")  # retraces
    assert np.isclose(model.evaluate(X, Y, verbose=0), loss)


def test_a_mask_set_by_the_layer():
    tokens = np.array([[1, 2, 0, 0], [3, 0, 0, 0], [4, 5, 6, 0]])
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            Shifted(name="shifted"),
            keras.layers.Dense(6, name="hidden"),
            keras.layers.Dense(2, name="logits"),
        ]
    )
    lora().attach(model, train=["shifted", "logits"])
    losses = []
    for run_eagerly in (True, False):
        model.compile("sgd", "mse", run_eagerly=run_eagerly)
        losses.append(model.evaluate(tokens, np.ones((3, 4, 2)), verbose=0))
    assert np.isclose(*losses)


def test_outputs_after_disabled_have_the_adapters_width(
    tmp_path,
):
    model, wide = model_of(), model_of(units=3)
    lora().attach(wide)
    kt.save_adapter(wide, tmp_path / "wide.safetensors")
    kt.load_adapter(model, tmp_path / "wide.safetensors")
    with adapters.disabled(model):
        assert model.predict(X, verbose=0).shape == (12, 2)
    assert_close(model.predict(X, verbose=0), wide.predict(X, verbose=0))


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
def test_training_after_disabled_trains_the_adapter():
    model = model_of()
    lora().attach(model)
    model.compile("sgd", LOSS, jit_compile=False)
    head = model.get_layer("logits").trainable_weights
    before = arrays(head)
    with adapters.disabled(model):
        model.train_on_batch(X, Y)
    assert_close(head, before)
    model.train_on_batch(X, Y)
    assert all(np.abs(v - old).max() > 1e-6 for v, old in zip(head, before))
