"""TensorFlow does not warn about functions that are retraced on purpose."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager.polymorphic_function import polymorphic_function

import keras_transfer as kt
from keras_transfer import _keras
from keras_transfer import adapters
from tests import tiny

X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
Y = np.arange(8) % 3


@pytest.fixture
def warnings_of_tracing(monkeypatch):
    """Return the list of TensorFlow's warnings, with counts that start at 0."""
    # TensorFlow warns at most twice about the same code, and counts other tests too.
    monkeypatch.setattr(
        polymorphic_function,
        "_frequent_tracing_detector_manager",
        polymorphic_function._FrequentTracingDetectorManager(),
    )
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = tf.get_logger()
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    return messages


def compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=False)
    return model


def deep():
    return compiled(tiny.mlp((5, 5, 5, 5, 5, 3)))


class Generating(keras.Model):
    """A model with a function that is made as keras-hub makes `generate`."""

    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(3, name="hidden")
        self.generate_function = None

    def call(self, x):
        return self.hidden(x)

    def make_generate_function(self):
        if self.generate_function is None:
            self.generate_function = tf.function(self.call)
        return self.generate_function


def unfreezing():
    model = deep()
    callback = kt.callbacks.GradualUnfreezing(model)
    adam = kt.optimizers.discriminative(keras.optimizers.Adam(), model)
    model.compile(adam, "mse")
    model.fit(X, X[:, :3], epochs=6, verbose=0, callbacks=[callback])


def rates():
    model = deep()
    for _ in range(6):
        kt.find_learning_rate(model, (X, Y), steps=10, batch_size=1)


def reports():
    model = deep()
    for _ in range(6):
        kt.report(model, data=(X, Y))


def phases():
    for _ in range(2):
        model = compiled(tiny.mlp())
        data, settings = (X, Y), dict(epochs=6, strategy="gradual", verbose=0)
        kt.fine_tune(model, data, validation_data=data, **settings)


def adapted():
    model = compiled(tiny.mlp())
    names = [f"number_{i}" for i in range(5)]
    for name in names:
        adapters.LoRA(rank=2, targets="dense_1").attach(model, name)
        model.predict_on_batch(X)
    for name in names:
        adapters.use(model, name)
        compiled(model).train_on_batch(X, Y)
    for _ in range(3):
        adapters.merge(model)
        model.predict_on_batch(X)
        adapters.unmerge(model)
        model.predict_on_batch(X)


def shapes():
    model = compiled(tiny.mlp())
    adapters.LoRA(rank=2, targets="dense_1").attach(model)
    for rows in range(1, 7):
        model.evaluate(X[:rows], Y[:rows], verbose=0)
        model.predict(X[:rows], verbose=0)


def generating():
    model = Generating()
    model(X)
    model.make_generate_function()(X)
    for i in range(6):
        adapters.LoRA(rank=2, targets="hidden").attach(model, f"number_{i}")
        model.generate_function(X)
        model.generate_function = None  # as `compile` of keras-hub does
        model.make_generate_function()(X)


LOOPS = [unfreezing, rates, reports, adapted, shapes, generating]
LOOPS += [pytest.param(phases, marks=pytest.mark.slow)]


@pytest.mark.slow
@pytest.mark.parametrize("act", LOOPS)
def test_intended_retracing_does_not_warn(warnings_of_tracing, act):
    act()
    assert warnings_of_tracing == []


@pytest.mark.slow
def test_accidental_retracing_still_warns(warnings_of_tracing):
    for _ in range(5):
        deep().predict(X, verbose=0)  # in plain Keras, in a loop
    assert "5 out of the last 5 calls" in warnings_of_tracing[0]
    del warnings_of_tracing[:]
    model = Generating()
    model(X)
    adapters.LoRA(rank=2, targets="hidden").attach(model)
    function = model.make_generate_function()
    for rows in range(1, 8):
        function(X[:rows])  # one function, with a new shape in each call
    assert "5 out of the last 5 calls" in warnings_of_tracing[0]


class Counting(keras.optimizers.SGD):
    """An optimizer that counts how often its step is traced for a variable."""

    traced = 0

    def update_step(self, *args):
        self.traced += 1
        return super().update_step(*args)


@pytest.mark.parametrize("build, traces", [(True, 1), (False, 2)])
def test_a_training_step_is_traced_once(build, traces):
    model, optimizer = tiny.mlp(), Counting(0.1, momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    if build:
        _keras.trace_once(model, data)
    model.fit(data, epochs=2, shuffle=False, verbose=0)
    assert optimizer.traced == traces * len(model.trainable_variables)
