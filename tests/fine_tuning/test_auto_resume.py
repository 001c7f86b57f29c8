"""A run with a pilot in a folder: killed, it ends like an uninterrupted run."""

import json

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer.adapters.switching import attached
from keras_transfer.fine_tuning.pilot import pilot as module
from keras_transfer.fine_tuning.pilot.trials import Trials
from tests import tiny
from tests.contracts.compare import assert_close
from tests.fine_tuning.killed import Kill
from tests.fine_tuning.killed import Killed

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
ARGUMENTS = dict(epochs=3, batch_size=8, budget=3, verbose=0)


def images(count=60):
    rng, y = np.random.default_rng(0), np.arange(count) % 3
    x = rng.normal(size=(count, 6, 6, 2)) + 0.3 * (y - 1)[:, None, None, None]
    return x.astype("float32"), y


def make(seed=3, batch_norm=False):
    keras.utils.set_random_seed(3)
    model = tiny.conv_blocks(batch_norm=batch_norm)
    model.compile(
        keras.optimizers.Adam(0.01), SPARSE, metrics=["accuracy"], jit_compile=False
    )
    keras.utils.set_random_seed(seed)  # of the run
    return model


def tune(model, **settings):
    return kt.fine_tune(model, images(), **ARGUMENTS | settings)


@pytest.fixture
def trials(monkeypatch):
    """Return the list of trials that run, which can end the process."""
    done, trial = Done(), Trials.trial

    def counted(self, *arguments):
        if len(done) == done.most:
            raise Killed
        score = trial(self, *arguments)
        done.append((str(arguments[0]), *arguments[1:]))
        return score

    monkeypatch.setattr(Trials, "trial", counted)
    return done


class Done(list):
    most = None


@pytest.fixture
def chosen(monkeypatch):
    """Return a list of names. A pilot chooses the finalist with the first name."""
    names = []
    choose = module.choose

    def choose_name(finalists):
        if not names:
            return choose(finalists)
        return next(
            (each.candidate, "Because.")
            for each in finalists
            if str(each.candidate) == names[0]
        )

    monkeypatch.setattr(module, "choose", choose_name)
    return names


def check_same(model, history, whole, expected):
    assert_close(model.get_weights(), whole.get_weights())
    assert history.pilot.rows() == expected.pilot.rows()
    assert history.epoch == expected.epoch
    assert history.strategy == expected.strategy
    for name, values in expected.history.items():
        if name != "seconds":
            assert history.history[name] == values


@pytest.mark.slow
def test_a_pilot_killed_again_and_again_continues(tmp_path, trials):
    whole = make()
    expected = tune(whole)
    order = list(trials)
    assert len(order) == len(set(order)) > 3
    found = []
    for number in range((len(order) - 1) // 2):
        trials.clear()
        trials.most = 2
        with pytest.raises(Killed):
            # The folder keeps the seed of the first call.
            tune(make(seed=3 + number), directory=tmp_path)
        found += trials
    trials.clear()
    trials.most = None
    model = make(seed=99)
    history = tune(model, directory=tmp_path)
    assert sorted([*found, *trials]) == sorted(order)
    check_same(model, history, whole, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora at 1 of the rate"])
def test_a_run_killed_after_its_pilot_continues(tmp_path, trials, chosen, name):
    chosen.append(name)
    whole = make()
    expected = tune(whole, directory=tmp_path / "whole")
    assert expected.strategy == name.partition(" ")[0]
    trials.clear()
    for epoch in (0, 2):
        with pytest.raises(Killed):
            tune(make(3 + epoch), directory=tmp_path / "run", callbacks=Kill(epoch))
    tried = len(trials)
    chosen[:] = ["another choice is not made"]
    model = make(seed=9)
    history = tune(model, directory=tmp_path / "run")
    assert len(trials) == tried == len(set(trials))
    check_same(model, history, whole, expected)
    assert list(attached(model)) == ["default"] * (expected.strategy == "lora")
    # The run has ended.
    again = make(seed=11)
    history = tune(again, directory=tmp_path / "run")
    assert len(trials) == tried
    check_same(again, history, whole, expected)


@pytest.mark.slow
def test_another_call_raises_and_changes_nothing(tmp_path, trials):
    trials.most = 2
    with pytest.raises(Killed):
        tune(make(batch_norm=True), directory=tmp_path)
    trials.most = None
    for change, message in (
        (dict(budget=2.0), "budget: 3 in the folder, 2.0 in this call"),
        (dict(batch_norm="frozen"), "batch_norm: 'auto' in the folder, 'frozen' in"),
        (dict(epochs=4), "epochs: 3 in the folder, 4 in this call"),
    ):
        text = (tmp_path / "pilot.json").read_text()
        with pytest.raises(ValueError, match=message):
            tune(make(batch_norm=True), directory=tmp_path, **change)
        assert (tmp_path / "pilot.json").read_text() == text
    tune(make(batch_norm=True), directory=tmp_path)
    for change, message in (
        (dict(budget=2.0), "budget: 3 in the folder, 2.0 in this call"),
        (dict(budget=0), "budget: 3 in the folder, 0"),
        (dict(batch_norm="train"), "batch_norm: 'auto' in the folder, 'train' in"),
        (dict(strategy="lp-ft", budget=1), "with other settings"),
    ):
        model = make(batch_norm=True)
        before = model.get_weights()
        with pytest.raises(ValueError, match=message):
            tune(model, directory=tmp_path, **change)
        assert_close(model.get_weights(), before, 0)


@pytest.mark.slow
def test_a_run_begun_by_name_continues_without_a_pilot(tmp_path, trials):
    whole = make()
    tune(whole, strategy="lp-ft", budget=1)
    with pytest.raises(Killed):
        tune(
            make(),
            strategy="lp-ft",
            budget=1,
            directory=tmp_path / "lp-ft",
            callbacks=Kill(1),
        )
    model = make()
    history = tune(model, directory=tmp_path / "lp-ft")
    assert history.pilot is None and not trials
    assert_close(model.get_weights(), whole.get_weights())
    with pytest.raises(Killed):
        tune(
            make(),
            strategy="full",
            budget=1,
            directory=tmp_path / "full",
            callbacks=Kill(1),
        )
    with pytest.raises(ValueError, match="strategy: 'full' in the folder, 'lp-ft'"):
        tune(make(), directory=tmp_path / "full")


@pytest.mark.slow
def test_a_folder_without_its_pilot_raises(tmp_path):
    with pytest.raises(Killed):
        tune(make(), directory=tmp_path, callbacks=Kill(1))
    state = json.loads((tmp_path / "fine_tune.json").read_text())
    assert state["settings"]["pilot"] is True
    (tmp_path / "pilot.json").unlink()
    with pytest.raises(ValueError, match="pilot.json cannot be read"):
        tune(make(), directory=tmp_path)
