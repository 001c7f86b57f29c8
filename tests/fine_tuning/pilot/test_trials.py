"""Trials: each starts from the same state, and trains only what it says."""

import itertools

import keras
import numpy as np
import pytest

from keras_transfer.fine_tuning.candidate import Candidate
from keras_transfer.fine_tuning.pilot.trials import Trials
from keras_transfer.fine_tuning.run import Call
from keras_transfer.fine_tuning.run import Run
from keras_transfer.fine_tuning.unchanged import ModelState
from tests import tiny
from tests.contracts.compare import assert_close

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SETTINGS = dict(
    batch_size=8, callbacks=None, class_weight=None, validation_freq=1, verbose=0
)
CANDIDATES = (
    Candidate("probe"),
    Candidate("lp-ft", 0.1),
    Candidate("lp-ft", 0.4),
    Candidate("lp-ft", 0.1, "train"),
    Candidate("full", 0.1),
    Candidate("gradual", 0.1),
    Candidate("lora", 1.0),
)


def images(count=60):
    rng, y = np.random.default_rng(0), np.arange(count) % 3
    x = rng.normal(size=(count, 6, 6, 2)) + 0.3 * (y - 1)[:, None, None, None]
    return x.astype("float32"), y


def trials_of(model, epochs=4, frozen=(), optimizer=None, data=None):
    optimizer = optimizer or keras.optimizers.Adam(0.01)
    model.compile(optimizer, SPARSE, metrics=["accuracy"], jit_compile=False)
    data = images() if data is None else data
    call = Call(model, data, None, epochs, None, frozen, dict(SETTINGS))
    run = Run.of(call, Candidate("auto"))
    return Trials(run, ModelState(model, model.weights), frozen)


def scores(order, make):
    keras.utils.set_random_seed(0)
    trials = trials_of(make())
    return {
        each: trials.trial(each, 12 * (each.strategy != "probe"), 0) for each in order
    }


def plain(found):
    return [value for each in ORDER for value in found[each].to_config()[:3]]


ORDER = [each for each in CANDIDATES if each not in (CANDIDATES[2], CANDIDATES[4])]


@pytest.mark.slow
def test_a_score_does_not_depend_on_the_trials_before():
    def make():
        return tiny.conv_blocks(batch_norm=True)

    found = scores(ORDER, make)
    again = scores(ORDER[::-1], make)
    assert_close(plain(again), plain(found), 1e-6)
    losses = [found[each].loss for each in ORDER]
    for one, other in itertools.combinations(losses, 2):
        assert one != pytest.approx(other, rel=1e-4)


@pytest.mark.slow
def test_a_head_of_several_layers_does_not_depend_on_the_trials_before():
    """Such a head trains at the learning rate of the user, not that of a trial."""

    def make():
        inputs = keras.Input((6, 6, 2))
        x = keras.layers.Conv2D(4, 3, activation="tanh", name="block_0")(inputs)
        x = keras.layers.Flatten()(x)
        hidden = keras.layers.Dense(4, activation="tanh", name="head_hidden")(x)
        return keras.Model(inputs, keras.layers.Dense(3, name="head_out")(hidden))

    def found(first):
        keras.utils.set_random_seed(0)
        trials = trials_of(make())
        if first:
            trials.trial(CANDIDATES[1], 6, 1)
        return trials.trial(CANDIDATES[0], 0, 0).to_config()[:3]

    assert_close(found(True), found(False), 1e-6)


@pytest.mark.slow
def test_a_trial_trains_what_its_strategy_trains():
    model = tiny.mlp(widths=(5, 4, 3))
    x, y = np.random.default_rng(0).normal(size=(60, 6)), np.arange(60) % 3
    trials = trials_of(model, data=(x, y))
    start = model.get_weights()
    moved = {}
    for each in (*CANDIDATES[:2], *CANDIDATES[4:6]):
        trials.trial(each, 8 * (each.strategy != "probe"), 0)
        pairs = zip(model.get_weights(), start, strict=True)
        moved[each.strategy] = [not np.allclose(a, b, atol=1e-6) for a, b in pairs]
    assert moved.pop("probe") == [False] * 4 + [True] * 2
    assert all(all(each) for each in moved.values())
    trials.start.restore()
    assert_close(model.get_weights(), start, 0)


@pytest.mark.slow
def test_groups_that_are_kept_frozen_do_not_train():
    model = tiny.mlp(widths=(5, 4, 3))
    x, y = np.random.default_rng(0).normal(size=(60, 6)), np.arange(60) % 3
    start = model.get_weights()
    trials = trials_of(model, frozen="dense_0", data=(x, y))
    trials.trial(CANDIDATES[4], 8, 0)
    pairs = list(zip(model.get_weights(), start, strict=True))
    assert [np.array_equal(a, b) for a, b in pairs] == [True] * 2 + [False] * 4
