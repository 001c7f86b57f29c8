"""A pilot in the folder of a run: finished trials, the result, and other settings."""

import json
import math

import pytest

from keras_transfer.fine_tuning.candidate import Candidate
from keras_transfer.fine_tuning.pilot.record import kept_pilot
from keras_transfer.fine_tuning.pilot.record import Pilot
from keras_transfer.fine_tuning.pilot.record import TrialFile
from keras_transfer.fine_tuning.pilot.record import Tried
from keras_transfer.fine_tuning.pilot.scores import Score

SETTINGS = {"budget": 1.0, "batch_norm": "auto", "epochs": 3}
PROBE, LORA = Candidate("probe"), Candidate("lora", 0.3, "train")
SCORE = Score([0.5, 1.0], [0.1, math.nan], [3, 2], "accuracy", True)


def file_of(path, **settings):
    return TrialFile(path, SETTINGS | settings, 7)


def finished(path):
    file = file_of(path)
    tried = Tried(PROBE, 0, SCORE), Tried(LORA, 9, SCORE)
    pilot = Pilot(tried, LORA, "Why.", 40, file.seed, 9, (Candidate("full", 0.1),))
    file.finish(pilot)
    return pilot


def test_finished_trials_are_kept(tmp_path):
    file = file_of(tmp_path / "run")
    assert file.get(LORA, 9, 0) is None
    file.add(LORA, 9, 0, SCORE)
    again = TrialFile(tmp_path / "run", SETTINGS, 8)
    assert again.seed == 7
    assert str(again.get(LORA, 9, 0).to_config()) == str(SCORE.to_config())
    for other in ((LORA, 9, 1), (LORA, 8, 0), (LORA._replace(batch_norm="a"), 9, 0)):
        assert again.get(*other) is None


def test_without_a_folder_trials_are_kept_in_memory():
    file = TrialFile(None, {}, 7)
    file.add(PROBE, 0, 0, SCORE)
    assert file.get(PROBE, 0, 0) is not None and file.seed == 7


def test_a_finished_pilot_is_read_again(tmp_path):
    pilot = finished(tmp_path)
    again = kept_pilot(tmp_path, {"budget": 1.0, "batch_norm": "auto"})
    assert str(again) == str(pilot) and again.rows() == pilot.rows()
    assert (again.chosen, again.seed, again.left_out) == (LORA, 7, pilot.left_out)


@pytest.mark.parametrize(
    "changed, message",
    [
        (dict(budget=2.0), "budget: 1.0 in the folder, 2.0 in this call"),
        (dict(batch_norm="train"), "batch_norm: 'auto' in the folder, 'train' in"),
    ],
)
def test_other_settings_raise(tmp_path, changed, message):
    finished(tmp_path)
    with pytest.raises(ValueError, match=message):
        file_of(tmp_path, **changed)
    with pytest.raises(ValueError, match=message):
        kept_pilot(tmp_path, changed)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": {}, "pilot": {}}'])
def test_a_damaged_file_raises(tmp_path, text):
    (tmp_path / "pilot.json").write_text(text)
    with pytest.raises(ValueError, match="cannot be read.*Delete the folder"):
        kept_pilot(tmp_path, {"budget": 1.0})
    with pytest.raises(ValueError, match="cannot continue.*Delete the folder"):
        file_of(tmp_path)


def test_a_pilot_that_did_not_end_is_no_result(tmp_path):
    file_of(tmp_path).add(PROBE, 0, 0, SCORE)
    assert "pilot" not in json.loads((tmp_path / "pilot.json").read_text())
    with pytest.raises(ValueError, match="cannot be read"):
        kept_pilot(tmp_path, {"budget": 1.0})
