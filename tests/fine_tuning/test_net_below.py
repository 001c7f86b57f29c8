"""The probe comes back if fine-tuning ends with a higher training loss."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer.fine_tuning import net_below
from tests.contracts.compare import assert_close
from tests.fine_tuning.killed import Kill
from tests.fine_tuning.killed import Killed

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
HIGH, SANE = 3000.0, 0.01


def data(count=60):
    rng, y = np.random.default_rng(0), np.arange(count) % 3
    return (rng.normal(size=(count, 6)) + 2 * np.eye(6)[y]).astype("float32"), y


def make(rate, seed=3):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5, activation="tanh", name="block_1")(inputs)
    x = keras.layers.BatchNormalization(name="block_2_norm")(x)
    x = keras.layers.Dense(4, activation="tanh", name="block_2")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))
    model.compile(keras.optimizers.SGD(rate), SPARSE, jit_compile=False)
    keras.utils.set_random_seed(seed)
    return model


def tune(model, xy=None, **settings):
    arguments = dict(epochs=3, batch_size=8, strategy="lp-ft", verbose=0) | settings
    return kt.fine_tune(model, data() if xy is None else xy, **arguments)


class Probe(keras.callbacks.Callback):
    """Store the weights with the converged head."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 0:
            self.weights = self.model.get_weights()


def test_a_rate_that_is_too_high_gives_the_probe_back(capsys):
    model, probe = make(HIGH), Probe()
    start = model.get_weights()
    history = tune(model, callbacks=[probe], verbose=2)
    assert_close(model.get_weights(), probe.weights, 0)
    assert_close(model.get_weights()[:-2], start[:-2], 0)
    assert not np.array_equal(model.get_weights()[-2], start[-2])
    assert "Fine-tuning hurt here: the loss on training examples is" in history.hurt
    assert "Use a smaller learning rate" in history.hurt
    assert f"fine_tune: {history.hurt}\n" in capsys.readouterr().out
    assert len(history.epoch) == 3
    loss = model.evaluate(*data(), verbose=0)
    assert f"was {loss:.4g} when only the head had trained" in history.hurt


def test_a_sane_rate_keeps_what_was_trained(capsys):
    model, probe = make(SANE), Probe()
    history = tune(model, callbacks=[probe], verbose=2)
    assert history.hurt is None
    assert "hurt" not in capsys.readouterr().out
    assert not np.array_equal(model.get_weights()[0], probe.weights[0])


@pytest.mark.slow
def test_a_probe_is_not_checked():
    assert tune(make(HIGH), strategy="probe").hurt is None


@pytest.mark.slow
def test_a_run_that_was_killed_gives_the_probe_back_too(tmp_path):
    whole = make(HIGH)
    expected = tune(whole).hurt
    assert expected
    for epoch in (0, 1, 2):
        with pytest.raises(Killed):
            tune(make(HIGH, 3 + epoch), directory=tmp_path, callbacks=[Kill(epoch)])
    model = make(HIGH, 9)
    history = tune(model, directory=tmp_path)
    assert history.hurt == expected
    assert_close(model.get_weights(), whole.get_weights())
    # A finished run says it again.
    again = make(HIGH, 11)
    history = tune(again, directory=tmp_path)
    assert history.hurt == expected and len(history.epoch) == 3
    assert_close(again.get_weights(), whole.get_weights())


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_higher():
    model = make(1e30)
    history = tune(model, callbacks=[keras.callbacks.TerminateOnNaN()])
    assert "Fine-tuning hurt here" in history.hurt
    assert np.isfinite(model.evaluate(*data(), verbose=0))


@pytest.mark.slow
def test_of_many_examples_a_random_choice_is_compared(monkeypatch):
    """Arrays may be sorted by class, and the loss of one class can rise alone."""
    monkeypatch.setattr(net_below, "COMPARED", 16)
    x, y = data(96)
    order = np.argsort(y, kind="stable")
    seen = []
    evaluate = keras.Model.evaluate

    def spied(model, batches, **settings):
        seen.append([np.array(labels) for _, labels in batches])
        return evaluate(model, batches, **settings)

    monkeypatch.setattr(keras.Model, "evaluate", spied)
    tune(make(SANE), (x[order], y[order]))
    first, last = (np.concatenate(labels) for labels in seen)
    assert len(first) == 16 and set(first) == {0, 1, 2}
    np.testing.assert_array_equal(first, last)


@pytest.mark.slow
def test_a_stop_of_the_user_is_checked_too():
    stop = keras.callbacks.EarlyStopping("loss", patience=0, restore_best_weights=True)
    model = make(HIGH)
    history = tune(model, callbacks=[stop], epochs=6)
    assert len(history.epoch) < 6
    assert np.isfinite(model.evaluate(*data(), verbose=0))
