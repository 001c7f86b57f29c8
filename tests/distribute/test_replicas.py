"""Two replicas train like one device: each component, and overflows of float16."""

import contextlib

import keras
import numpy as np
import pytest
from keras import layers

import keras_transfer as kt
from keras_transfer import _keras
from tests import tiny
from tests.contracts.compare import assert_close

STEPS = 4
IDS = np.array([[1, 1, 2], [1, 3, 3], [2, 2, 2], [1, 5, 6]] * 2, "int32")
LABELS = np.arange(8) % 3


def both(strategy, make, x, y, **settings):
    """Return the weights after some steps on one device and on two replicas."""
    settings = dict(batch_size=8, epochs=STEPS, shuffle=False, verbose=0) | settings
    found = []
    for scope in (contextlib.nullcontext(), strategy.scope()):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        with scope:
            model, callbacks = make()
        model.run_eagerly = not found  # one device: saves a trace
        before = model.get_weights()
        model.fit(x, y, callbacks=callbacks, **settings)
        assert _keras.value(model.optimizer.iterations) == STEPS
        moved = zip(before, model.get_weights(), strict=True)
        assert any(np.abs(a - b).max() > 1e-3 for a, b in moved)
        found.append(model.get_weights())
    return found


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 6)).astype("float32")
    # The second replica has much larger gradients, so the place of clipping matters.
    return x, np.concatenate([x[:4, :3], 50 * x[4:, :3]])


# Without sparse gradients: optimizers/test_discriminative.py.
@pytest.mark.slow
def test_sparse_gradients_of_repeated_ids(strategy):
    def make():
        model = keras.Sequential([keras.Input((3,), dtype="int32")])
        model.add(layers.Embedding(7, 4, name="table"))
        model.add(layers.GlobalAveragePooling1D())
        model.add(layers.Dense(3, name="head"))
        adam = keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.05)
        optimizer = kt.optimizers.discriminative(adam, model, layer_decay=0.5)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss)
        return model, []

    one, two = both(strategy, make, IDS, LABELS)
    assert_close(two, one, 1e-6)


@pytest.mark.slow
def test_lora_on_a_table_with_repeated_ids_and_clipping(strategy):
    def make():
        model = keras.Sequential([keras.Input((3,), dtype="int32")])
        model.add(layers.Embedding(7, 4, name="table"))
        model.add(layers.GlobalAveragePooling1D())
        model.add(layers.Dense(3, name="head"))
        kt.adapters.LoRA(rank=2, targets="table").attach(model)
        adam = keras.optimizers.AdamW(0.01, clipnorm=0.05)
        optimizer = kt.optimizers.discriminative(adam, model, layer_decay=0.5)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss)
        return model, []

    one, two = both(strategy, make, IDS, LABELS)
    assert_close(two, one, 1e-6)


@pytest.mark.slow
def test_gradual_unfreezing(strategy):
    def make():
        model = tiny.mlp()
        model.compile(keras.optimizers.AdamW(0.01, global_clipnorm=0.5), "mse")
        return model, [kt.callbacks.GradualUnfreezing(model, epochs_per_phase=1)]

    one, two = both(strategy, make, *data())
    assert_close(two, one, 1e-6)


@pytest.mark.slow
def test_the_feature_cache(strategy):
    x, y = data()
    backbone = tiny.mlp(widths=(5, 4))
    cached = kt.backbones.cache_features(backbone, (x, y), verbose=0)

    def make():
        head = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
        adam = keras.optimizers.AdamW(0.01, global_clipnorm=0.5)
        head.compile(kt.optimizers.discriminative(adam, head, layer_decay=0.5), "mse")
        return head, []

    one, two = both(strategy, make, cached.batch(8), None, batch_size=None)
    assert_close(two, one, 1e-6)


# float16. Only a gradient of the second replica overflows.


def overflown(strategy, wrap):
    keras.config.set_dtype_policy("mixed_float16")
    with strategy.scope():
        model = keras.Sequential([keras.Input((2,)), layers.Dense(1, use_bias=False)])
        model.compile(wrap(keras.optimizers.SGD(1e-3), model), "mse")
    before = model.get_weights()[0]
    x = np.array([[1e-3, 1e-3]] * 2 + [[1e4, 1e4]] * 2, "float32")
    model.fit(x, np.zeros((4, 1)), batch_size=4, shuffle=False, verbose=0)
    return before, model


@pytest.fixture
def stock_check(monkeypatch):
    """Restore Keras's own check for overflows."""
    kind = keras.optimizers.LossScaleOptimizer
    _keras.fix_loss_scale()
    stock = kind.check_finite.__closure__[0].cell_contents
    monkeypatch.setattr(kind, "check_finite", stock)


def test_stock_keras_applies_an_overflow_of_another_replica(strategy, stock_check):
    # If this fails: Keras has fixed the bug, and _keras.fix_loss_scale can be removed.
    _, model = overflown(strategy, lambda sgd, model: sgd)
    assert not np.isfinite(model.get_weights()[0]).all()


@pytest.mark.parametrize("kind", ["stock", "discriminative"])
def test_an_overflow_on_one_replica_skips_the_step_on_all(strategy, kind):
    def wrap(sgd, model):
        if kind == "stock":
            kt.distribute.connect("cpu")  # it fixes Keras's check
            return sgd
        return kt.optimizers.discriminative(sgd, model)

    before, model = overflown(strategy, wrap)
    np.testing.assert_array_equal(model.get_weights()[0], before)
    assert _keras.value(model.optimizer.iterations) == 0
    assert _keras.value(model.optimizer.dynamic_scale) == 2.0**14  # half of the first


def test_the_fixes_are_applied_once():
    _keras.fix_loss_scale()
    _keras.fix_workers()
    assert _keras.fix_loss_scale() == _keras.fix_workers() == []
