"""BatchLoss inside `fit`: replicas, masks, and Keras's global settings."""

import keras
import numpy as np
import pytest

from keras_transfer.losses import CORAL
from keras_transfer.losses import MMD
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.loss_contract import value_and_gradients


class Aligned(keras.Model):
    """A Dense for both domains that trains only on a BatchLoss."""

    def __init__(self, loss):
        super().__init__()
        self.alignment = loss
        self.dense = keras.layers.Dense(2, use_bias=False)
        self.dense.build((None, 3))

    def call(self, inputs):
        return self.dense(inputs[0]), self.dense(inputs[1])

    def compute_loss(self, x, y, y_pred, sample_weight, training=True):
        return self.alignment(*y_pred)


def domains():
    """Return eight rows of each domain."""
    rng = np.random.default_rng(0)
    source = rng.normal(size=(8, 3)).astype("float32")
    return source, rng.normal(1, 2, size=(8, 3)).astype("float32")


@pytest.mark.parametrize("kind", [CORAL, MMD])
def test_two_replicas_train_on_the_mean_of_their_losses(kind, strategy):
    # A scalar from `call` would count twice, because Keras does not scale a scalar.
    kernel = np.random.default_rng(1).normal(size=(3, 2)).astype("float32")
    losses, steps = [], []
    for part in (slice(0, 4), slice(4, 8)):
        shares = [x[part] for x in domains()]
        loss, gradients = value_and_gradients(kind(), *(x @ kernel for x in shares))
        losses.append(loss)
        steps.append(sum(x.T @ g for x, g in zip(shares, gradients, strict=True)))
    with strategy.scope():
        model = Aligned(kind())
        model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    model.dense.kernel.assign(kernel)
    history = fit(model, domains(), None, batch_size=8)
    assert_close(model.get_weights(), [kernel - 0.1 * np.mean(steps, axis=0)], 1e-5)
    np.testing.assert_allclose(history.history["loss"], np.mean(losses), rtol=1e-5)


def test_compile_accepts_a_batch_loss():
    features = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    features.compile("sgd", MMD(), jit_compile=False)
    source, target = domains()
    history = fit(features, target, source[:, :2], batch_size=8)
    assert np.isfinite(history.history["loss"]).all()


def test_a_mask_of_positions_changes_nothing():
    source, target = (keras.ops.convert_to_tensor(x) for x in domains())
    expected = float(CORAL()(source, target))
    target._keras_mask = keras.ops.convert_to_tensor([[True, False]] * 8)
    np.testing.assert_allclose(CORAL()(source, target), expected, rtol=1e-6)


def test_half_precision_floatx_changes_nothing():
    expected = float(MMD()(*domains()))
    keras.config.set_floatx("float16")
    try:
        assert float(MMD()(*domains())) == expected
    finally:
        keras.config.set_floatx("float32")
