"""The strategy "auto": a pilot chooses, and leaves nothing else behind."""

import contextlib
import io
import random
import types

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import _keras
from keras_transfer.adapters.switching import attached
from keras_transfer.fine_tuning.pilot import pilot as module
from keras_transfer.fine_tuning.pilot.candidates import candidates
from tests import tiny
from tests.contracts.compare import assert_close
from tests.fine_tuning import model_state

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def data(count=96):
    rng, y = np.random.default_rng(0), np.arange(count) % 3
    return (rng.normal(size=(count, 6)) + np.eye(6)[y]).astype("float32"), y


def images(count=96):
    rng, y = np.random.default_rng(0), np.arange(count) % 3
    x = rng.normal(size=(count, 6, 6, 2)) + 0.3 * (y - 1)[:, None, None, None]
    return x.astype("float32"), y


def compiled(model, optimizer=None, loss=SPARSE, **settings):
    settings = dict(metrics=["accuracy"], jit_compile=False) | settings
    model.compile(optimizer or keras.optimizers.Adam(0.01), loss, **settings)
    return model


def make(seed=3, **settings):
    keras.utils.set_random_seed(seed)
    below = [tiny.mlp(widths=(5, 4)), keras.layers.Dropout(0.2)]
    model = keras.Sequential([keras.Input((6,)), *below, keras.layers.Dense(3)])
    return compiled(model, **settings)


def make_blocks(seed=3, **settings):
    keras.utils.set_random_seed(seed)
    return compiled(tiny.conv_blocks(), **settings)


def tune(model, xy=None, **settings):
    settings = dict(epochs=4, batch_size=8, verbose=0) | settings
    return kt.fine_tune(model, data() if xy is None else xy, **settings)


@pytest.fixture(scope="module")
def tuned():
    """Return the model, the History and the output of one call."""
    model, said = make(), io.StringIO()
    with contextlib.redirect_stdout(said):
        history = tune(model, verbose=2)
    weights, rates = model.get_weights(), model.optimizer.rates
    return types.SimpleNamespace(
        weights=weights, rates=rates, history=history, said=said.getvalue()
    )


def test_the_pilot_is_printed_and_kept(tuned):
    pilot = tuned.history.pilot
    assert f"fine_tune: {pilot}\n" in tuned.said
    assert f"strategy {tuned.history.strategy!r}, chosen by a pilot\n" in tuned.said
    rows = pilot.rows()
    assert [row["candidate"] for row in rows if row["chosen"]] == [str(pilot.chosen)]
    assert tuned.history.strategy == pilot.chosen.strategy
    assert rows[0]["candidate"] == "probe" and rows[0]["steps"] == 0
    assert rows[1]["candidate"] == "lp-ft at 0.3 of the rate"
    assert all(row["metric"] == "accuracy" for row in rows)
    assert pilot.labels == 96 and pilot.steps <= 4 * 12


def test_the_model_is_that_of_the_chosen_strategy_by_name(tuned):
    assert str(tuned.history.pilot.chosen) == "lp-ft at 0.3 of the rate"
    by_name = make()
    history = tune(by_name, strategy="lp-ft")
    assert_close(tuned.weights, by_name.get_weights())
    assert history.history["loss"] == tuned.history.history["loss"]
    assert by_name.optimizer.rates == tuned.rates
    assert history.pilot is None and history.hurt is None


@pytest.mark.slow
def test_validation_data_and_callbacks_are_for_the_run_only(tuned, capfd):
    class Begins(keras.callbacks.Callback):
        begins, epochs = 0, []

        def on_train_begin(self, logs=None):
            self.begins += 1

        def on_epoch_begin(self, epoch, logs=None):
            self.epochs.append(epoch)

    callback, again, (x, y) = Begins(), make(), data(30)
    history = tune(again, validation_data=(x, (y + 1) % 3), callbacks=[callback])
    assert capfd.readouterr() == ("", "")
    assert (callback.begins, callback.epochs) == (1, [0, 1, 2, 3])
    assert history.epoch == [0, 1, 2, 3]
    # The seed determines the pilot and the result.
    assert history.pilot.rows() == tuned.history.pilot.rows()
    assert_close(again.get_weights(), tuned.weights)


@pytest.mark.slow
def test_frozen_groups_stay_frozen_in_pilot_and_run():
    model = make()
    before = model.get_weights()[:2]
    tune(model, frozen=iter(["dense_0"]))
    assert_close(model.get_weights()[:2], before, 0)


def state(model):
    """Return the objects and the values that a pilot must not change."""
    objects, values = model_state.state(model)
    return [*objects, random.getstate()], values


class Failing(keras.metrics.MeanMetricWrapper):
    """An accuracy that raises at one of its updates."""

    def __init__(self, error, at):
        super().__init__(keras.metrics.sparse_categorical_accuracy, "accuracy")
        self.error, self.left = error, at

    def update_state(self, *args, **kwargs):
        self.left -= 1
        if not self.left:
            raise self.error
        return super().update_state(*args, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "at"),
    [(RuntimeError("no"), 5), (KeyboardInterrupt(), 80)],
    ids=repr,
)
def test_an_error_in_a_trial_leaves_nothing_behind(error, at):
    make_blocks()
    np.random.randint(2**31)  # the seed of the run
    expected = np.random.uniform(), np.array(keras.random.uniform((2,)))
    metric = Failing(error, at)
    model = make_blocks(metrics=[metric], run_eagerly=True)
    before, values = state(model)
    seen = []
    with pytest.raises(type(error)):
        tune(model, images(), budget=3, callbacks=Begun(seen))
    assert not seen and metric.left == 0
    after, same = state(model)
    assert after == before
    assert_close(same, values, 0)
    assert np.random.uniform() == expected[0]
    assert_close(np.array(keras.random.uniform((2,))), expected[1], 0)


class Begun(keras.callbacks.Callback):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def on_train_begin(self, logs=None):
        self.seen.append(self.model)


def force(monkeypatch, name):
    """Make a pilot choose a finalist by name, whatever the scores are."""

    def choose(finalists):
        (found,) = (each for each in finalists if str(each.candidate) == name)
        return found.candidate, "By name."

    monkeypatch.setattr(module, "choose", choose)


@pytest.mark.slow
def test_a_pilot_changes_nothing_but_its_random_number(monkeypatch):
    force(
        monkeypatch, "lp-ft at 0.3 of the rate"
    )  # another one attaches LoRA after the pilot
    model = make_blocks()
    model.evaluate(*images(), verbose=0)
    before, values = state(model)
    seen = []

    class Look(keras.callbacks.Callback):
        def set_model(self, model):
            seen.append(state(model))
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        tune(model, images(), budget=3, callbacks=Look())
    assert_close(seen[0][1], values, 0)
    after, same = state(model)
    assert after == before
    assert_close(same, values, 0)
    assert model.evaluate(*images(), verbose=0)


@pytest.mark.slow
def test_lora_leaves_no_adapter_if_it_is_not_chosen(monkeypatch):
    force(monkeypatch, "lp-ft at 0.3 of the rate")
    model = make_blocks()
    history = tune(model, images(), budget=3)
    tried = [row["candidate"] for row in history.pilot.rows()]
    assert "lora at 1 of the rate" in tried
    assert history.strategy == "lp-ft" and not attached(model)
    assert not any("lora" in weight.path for weight in model.weights)


@pytest.mark.slow
def test_lora_stays_attached_if_it_is_chosen(monkeypatch):
    force(monkeypatch, "lora at 1 of the rate")
    model, by_name = make_blocks(), make_blocks()
    keras.utils.set_random_seed(1)
    history = tune(model, images(), budget=3)
    assert history.strategy == "lora" and list(attached(model)) == ["default"]
    keras.utils.set_random_seed(1)
    tune(by_name, images(), strategy="lora")
    assert_close(model.get_weights(), by_name.get_weights())


@pytest.mark.slow
def test_an_adapter_is_tried_at_several_rates():
    model = make_blocks()
    kt.adapters.LoRA(rank=2).attach(model, verbose=0)
    compiled(model)
    history = tune(model, images(), budget=2)
    assert {row["strategy"] for row in history.pilot.rows()} == {"probe", "lora"}
    assert attached(model)["default"].rank == 2


@pytest.mark.slow
def test_batch_norm_can_be_chosen(monkeypatch):
    seen = []

    def choose(finalists):
        seen.extend(x.candidate for x in finalists)
        return seen[1]._replace(batch_norm="train"), "Why."

    monkeypatch.setattr(module, "choose", choose)
    keras.utils.set_random_seed(0)
    model = compiled(tiny.conv_blocks(batch_norm=True))
    means = _keras.value(model.get_layer("block_0_norm").moving_mean)
    tune(model, images())
    assert (means != _keras.value(model.get_layer("block_0_norm").moving_mean)).all()
    found = candidates(model, "lp-ft", "auto", own_rates=False)
    assert any(each.batch_norm == "train" for each in found)


@pytest.mark.slow
def test_with_a_rate_that_is_far_too_high_only_the_head_trains():
    model = make(optimizer=keras.optimizers.SGD(1e20))
    before = model.get_weights()[:4]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        history = tune(model, budget=2, verbose=2)
    assert history.strategy == "probe"
    assert "not finite" in said.getvalue() or "Fine-tuning hurt here" in said.getvalue()
    assert_close(model.get_weights()[:4], before, 0)
