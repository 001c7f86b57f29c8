"""check raises before training if Keras cannot train on several replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.distribute import check
from tests import tiny
from tests.contracts.compare import fit
from tests.test_keras_facts import data

ACCUMULATE = dict(gradient_accumulation_steps=2)
OVERWRITE = dict(use_ema=True, ema_overwrite_frequency=2)
IN_COMPILE = [
    (dict(steps_per_execution=2), "steps_per_execution=2.*issues/19246"),
    (dict(jit_compile=True), "jit_compile=True fails on 2 replicas"),
]
IN_OPTIMIZER = [
    (ACCUMULATE, "gradient_accumulation_steps=2 of SGD .*issues/20582"),
    (OVERWRITE, "ema_overwrite_frequency=2 of SGD .*issues/20582"),
]


def compiled(optimizer=None, **settings):
    model = tiny.mlp()
    model.compile(optimizer or keras.optimizers.SGD(), "mse", **settings)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("settings, message", IN_COMPILE + IN_OPTIMIZER, ids=str)
def test_each_setting_that_fails_raises(strategy, settings, message):
    def make():
        if (settings, message) in IN_COMPILE:
            return compiled(**settings)
        return compiled(keras.optimizers.SGD(**settings))

    alone = make()
    check(alone)
    fit(alone, *data())
    with strategy.scope():
        model = make()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        check(model)
    with pytest.raises(ValueError, match=message):
        fit(model, *data(), callbacks=[kt.callbacks.GradualUnfreezing(model)])
    with pytest.raises(ValueError, match=message):
        kt.fine_tune(model, data(), epochs=1, strategy="full", verbose=0)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    # If this fails: Keras supports the setting now, and the check can be removed.
    with pytest.raises((RuntimeError, tf.errors.InvalidArgumentError)):
        fit(model, *data())


@pytest.mark.parametrize("settings, message", IN_OPTIMIZER, ids=str)
def test_discriminative_raises_when_it_is_made(strategy, settings, message):
    sgd = keras.optimizers.SGD(**settings)
    model = tiny.mlp()
    kt.optimizers.discriminative(sgd, model)
    with strategy.scope(), pytest.raises(ValueError, match=message):
        kt.optimizers.discriminative(keras.optimizers.SGD(**settings), tiny.mlp())


def test_the_inner_optimizer_of_float16_is_checked(strategy):
    keras.config.set_dtype_policy("mixed_float16")
    with strategy.scope():
        model = compiled(keras.optimizers.SGD(**ACCUMULATE))
    with pytest.raises(ValueError, match="gradient_accumulation_steps=2"):
        check(model)


def test_working_settings_raise_nothing(strategy):
    with strategy.scope():
        model = compiled(keras.optimizers.SGD(use_ema=True, clipnorm=1.0))
    check(model)
    fit(model, *data())


def test_a_keras_distribution_raises():
    devices = keras.distribution.list_devices()
    parallel = keras.distribution.DataParallel(devices=devices)
    keras.distribution.set_distribution(parallel)
    try:
        with pytest.raises(ValueError, match="on one device only"):
            check(compiled())
    finally:
        keras.distribution.set_distribution(None)


def test_parameter_servers_raise():
    # A cluster of only this process: the strategy makes no connection before a step.
    model = compiled()

    class Strategy(tf.distribute.ParameterServerStrategy):
        def __init__(self):
            pass

    model._distribute_strategy = Strategy()
    with pytest.raises(ValueError, match="ParameterServerStrategy"):
        check(model)
