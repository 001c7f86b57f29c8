"""On two devices of JAX, trainings equal those on one, and large weights are split.

KERAS_BACKEND=jax python -m tests.backends.devices
"""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import keras
import numpy as np
import pytest

import keras_transfer as kt
from tests import tiny
from tests.backends.trainings import adapting
from tests.backends.trainings import blocks
from tests.contracts.domain_contract import extractor
from tests.contracts.domain_contract import free_head
from tests.golden import bases

ROWS = 19  # in batches of 4, the last one has 3 examples
SETTINGS = dict(epochs=5, batch_size=4, shuffle=False, verbose=0)


def one_device():
    keras.distribution.set_distribution(None)


def batch_norm():
    """Train with BatchNormalization and clipping, which need the whole batch."""
    layers = [keras.Input((6,)), keras.layers.Dense(6), keras.layers.Dense(3)]
    layers.insert(2, keras.layers.BatchNormalization(momentum=0.5))
    model = bases.exact(keras.Sequential(layers))
    model.layers[1].moving_variance.assign(np.ones(6))
    sgd = keras.optimizers.SGD(0.05, momentum=0.9, global_clipnorm=0.1)
    model.compile(sgd, bases.LOGITS)
    return trained(model, bases.vectors(ROWS))


def gradual():
    model = blocks()
    optimizer = kt.optimizers.discriminative(keras.optimizers.AdamW(0.01), model)
    model.compile(optimizer, bases.LOGITS)
    unfreezing = kt.callbacks.GradualUnfreezing(model)
    return trained(model, bases.vectors(ROWS), callbacks=[unfreezing])


def adapted():
    """Return a model with LoRA on a frozen base."""
    model = bases.bert()
    kt.adapters.LoRA(rank=2).attach(model, verbose=0)
    bases.exact(model, 0.5)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), bases.LOGITS)
    return model


def trained(model, x, **settings):
    history = model.fit(x, bases.labels(ROWS), **SETTINGS | settings)
    x = keras.tree.map_structure(lambda array: array[:5], x)  # an odd number
    outputs = model.predict(x, batch_size=4, verbose=0)
    return [*model.get_weights(), outputs, np.array(history.history["loss"])]


def close(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


TRAININGS = (
    batch_norm,
    gradual,
    lambda: adapting(kt.models.DANN),
)


def shared_batches():
    """Compare trainings on one device with those that share each batch."""
    for train in TRAININGS:
        one_device()
        keras.utils.clear_session()
        expected = train()
        keras.utils.clear_session()
        distribution = kt.distribute.connect()
        assert distribution.num_replicas_in_sync == 2
        assert distribution is keras.distribution.distribution()
        close(train(), expected)


def whole_runs():
    """Run what makes functions before `fit`, with metrics that are not built yet."""
    x, y = bases.vectors(152), bases.labels(152)
    found = []
    for device in (one_device, kt.distribute.connect):
        device()
        keras.utils.clear_session()
        keras.utils.set_random_seed(1)
        model = bases.exact(kt.models.TransferClassifier(tiny.mlp((6, 6, 6)), 3))
        settings = dict(loss=bases.LOGITS, metrics=["accuracy"])
        model.compile(keras.optimizers.AdamW(0.01), **settings)
        curve = kt.find_learning_rate(model, (x, y), steps=12, batch_size=4)
        history = kt.fine_tune(model, (x, y), epochs=2, batch_size=8, verbose=0)
        found.append([curve.losses, history.history["loss"], *model.get_weights()])
        model.compile(keras.optimizers.AdamW(0.01), **settings)
        kt.fine_tune(model, (x, y), strategy="probe", epochs=1, verbose=0)
    close(*found)


def split_adaptation():
    """Split the weights of a model that counts its steps."""
    one_device()
    network = extractor()
    network.trainable = False
    model = kt.models.DANN(network, free_head())
    model.compile("sgd", bases.LOGITS)
    kt.distribute.layout(model)
    kt.distribute.check(model)
    x = {name: bases.vectors(16) for name in ("source", "target")}
    logs = model.fit(x, bases.labels(16), batch_size=4, verbose=0).history
    assert logs["strength"][0] > 0.99


def split_weights():
    """Compare a training on one device with one whose frozen weights are split."""
    one_device()
    used = adapted()
    expected = trained(used, bases.tokens(ROWS))
    model = adapted()
    outputs = model.predict(bases.tokens(4), verbose=0)
    kt.distribute.layout(model)
    close([model.predict(bases.tokens(4), verbose=0)], [outputs])
    close(trained(model, bases.tokens(ROWS)), expected)
    learn = {id(x) for x in model.trainable_variables}
    halves = 0
    for variable in [*model.variables, *model.optimizer.variables]:
        held = [each.data.nbytes for each in variable.value.addressable_shards]
        assert len(held) == 2
        half = [variable.value.nbytes // 2] * 2
        assert held == half or held == [variable.value.nbytes] * 2
        halves += held == half
        if id(variable) in learn:
            assert held != half
    assert halves > 10
    one_device()
    kt.distribute.layout(used)  # with variables of the optimizer
    trained(used, bases.tokens(ROWS))


def keras_fails_at_a_short_batch():
    """Check the fault of Keras that `connect` fixes, to see when it is gone."""
    with keras.distribution.DataParallel().scope():
        model = tiny.mlp()
        model.compile("sgd", "mse")
        with pytest.raises(Exception, match="axis 0 is partitioned 2 times"):
            model.fit(np.ones((5, 6)), np.ones((5, 3)), batch_size=2, verbose=0)


def bad_input():
    one_device()
    distribute, model = kt.distribute, tiny.mlp()
    for devices in ("gpu", ["cpu:0", "cpu:0"], ["cpu:5"], []):
        with pytest.raises(ValueError, match="cpu:1"):
            distribute.connect(devices)
    with pytest.raises(ValueError, match="tpu='local' has no effect on JAX"):
        distribute.connect(tpu="local")
    with pytest.raises(ValueError, match="no frozen weight.*connect"):
        distribute.layout(model)
    model.trainable = False
    with pytest.raises(ValueError, match="only the device cpu:0.*two devices"):
        distribute.layout(model, ["cpu:0"])
    unbuilt = keras.Sequential([keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="not built"):
        distribute.layout(unbuilt)
    assert keras.distribution.distribution() is None
    model = tiny.mlp()
    model.compile("sgd", "mse")
    distribute.connect()
    with pytest.raises(ValueError, match="before .*connect"):
        distribute.check(model)


def main():
    keras_fails_at_a_short_batch()
    shared_batches()
    whole_runs()
    split_weights()
    split_adaptation()
    bad_input()


if __name__ == "__main__":
    main()
