"""The folder of a run: saved, restored, and errors for other folders."""

import json
import pathlib

import keras
import numpy as np
import pytest

from keras_transfer import _keras
from keras_transfer.fine_tuning.run_folder import RunFolder
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close

SETTINGS = {"strategy": "probe", "epochs": 2}


def make(dropout=0.5):
    layers = [keras.Input((4,)), keras.layers.Dropout(dropout), keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def folder_of(path, settings=SETTINGS):
    history = keras.callbacks.History()
    history.epoch = []
    return RunFolder(path, settings, history)


def epoch(folder, model, number):
    """Train an epoch, and call the callback."""
    model.fit(np.ones((4, 4)), np.ones((4, 3)), verbose=0)
    folder.history.epoch.append(number)
    folder.history.history.setdefault("loss", []).append(number / 3)
    folder.history.history.setdefault("each", []).append(np.ones(2, "float32"))
    callback = folder.callback
    callback.set_model(model)
    callback.on_epoch_end(number)
    return callback


def files(path):
    return sorted(each.name for each in pathlib.Path(path).iterdir())


def test_weights_slots_seeds_and_history_are_restored(tmp_path):
    folder, model = folder_of(tmp_path / "new" / "run"), make()
    assert folder.seed is None
    folder.begin(model, 7)
    assert folder.seed == 7 and not folder.finished
    epoch(folder, model, 0)
    again, other = folder_of(folder.path), make()
    assert again.epoch == 1 and again.seed == 7
    again.begin(other, 8)
    assert again.seed == 7
    for kind in (lambda x: x.weights, lambda x: x.optimizer.variables, _keras.seeds):
        assert_close(arrays(kind(other)), arrays(kind(model)))
    assert len(_keras.seeds(other)) == 1
    again.history.on_train_begin()
    callback = again.callback
    callback.set_model(other)
    callback.on_train_begin()
    assert again.history.epoch == [0]
    assert again.history.history == {"loss": [0.0], "each": [[1.0, 1.0]]}
    callback.on_train_end()
    assert folder_of(folder.path).finished


def test_old_files_of_the_run_are_deleted_and_other_files_stay(tmp_path):
    folder, model = folder_of(tmp_path), make()
    folder.begin(model, 0)
    (tmp_path / "epoch_0.weights.h5").write_text("of a ModelCheckpoint")
    for number in range(2):
        callback = epoch(folder, model, number)
    names = ["epoch_0.weights.h5", "fine_tune.json", "fine_tune_2.weights.h5"]
    assert files(tmp_path) == names
    callback.on_train_end()
    assert files(tmp_path) == [*names[:2], "fine_tune_end.weights.h5"]


class Killed(Exception):
    """An exception that stands for the end of the process."""


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["weights", "state"])
def test_a_kill_while_saving_keeps_the_previous_epoch(tmp_path, monkeypatch, cut):
    folder, model = folder_of(tmp_path), make()
    folder.begin(model, 0)
    epoch(folder, model, 0)
    before = model.get_weights()

    def killed(*paths):
        if cut == "weights":
            pathlib.Path(paths[-1]).write_bytes(b"half")
        raise Killed

    with monkeypatch.context() as patch:
        if cut == "weights":
            patch.setattr(keras.Model, "save_weights", killed)
        else:
            patch.setattr("os.replace", killed)
        with pytest.raises(Killed):
            epoch(folder, model, 1)
    again, fresh = folder_of(tmp_path), make()
    assert again.epoch == 1
    again.begin(fresh, 0)
    assert_close(fresh.get_weights(), before)
    epoch(again, fresh, 1)
    assert files(tmp_path)[-1] == "fine_tune_2.weights.h5"


# The name of partial files now, and in version 0.1.0.
@pytest.mark.parametrize(
    "partial", [".fine_tune.json.0a.partial", "fine_tune.json.new"]
)
def test_a_folder_after_a_kill_at_the_start_is_accepted(partial, tmp_path):
    for name in ("fine_tune_0.weights.h5", partial):
        (tmp_path / name).write_text("half")
    folder = folder_of(tmp_path)
    assert folder.state is None
    folder.begin(make(), 0)
    assert folder_of(tmp_path).epoch == 0
    assert files(tmp_path) == ["fine_tune.json", "fine_tune_0.weights.h5"]


def test_another_folder_raises_and_is_unchanged(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"of a run. It has \['thesis.txt'\]"):
        folder_of(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        folder_of(tmp_path / "thesis.txt")
    assert files(tmp_path) == ["thesis.txt"]


def test_another_run_raises_with_the_differences(tmp_path):
    folder_of(tmp_path).begin(make(), 0)
    with pytest.raises(ValueError, match="epochs: 2 in the folder, 3 in this call"):
        folder_of(tmp_path, SETTINGS | {"epochs": 3})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": {}}'])
def test_a_damaged_state_raises(tmp_path, text):
    (tmp_path / "fine_tune.json").write_text(text)
    with pytest.raises(ValueError, match="cannot continue"):
        folder_of(tmp_path)


def test_missing_weights_raise(tmp_path):
    folder_of(tmp_path).begin(make(), 0)
    state = json.loads((tmp_path / "fine_tune.json").read_text())
    (tmp_path / state["weights"]).unlink()
    with pytest.raises(ValueError, match="weights.h5' is missing"):
        folder_of(tmp_path)
