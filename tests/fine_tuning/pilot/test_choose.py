"""The choice of a pilot: the default stays unless another candidate is better."""

import math

import numpy as np
import pytest

from keras_transfer.fine_tuning.candidate import Candidate
from keras_transfer.fine_tuning.pilot.pilot import choose
from keras_transfer.fine_tuning.pilot.record import Pilot
from keras_transfer.fine_tuning.pilot.record import Tried
from keras_transfer.fine_tuning.pilot.scores import Score

PROBE = Candidate("probe")
DEFAULT, HIGH, LORA = (
    Candidate("lp-ft", 0.2),
    Candidate("lp-ft", 0.4),
    Candidate("lora", 1.0),
)
NOISE = np.random.default_rng(0).normal(size=40)
NOISE -= NOISE.mean()


def tried(candidate, gain=0.0, lower=0.0, spread=1.0):
    """Return a trial that is better than the default by `gain` in standard errors.

    The loss is lower by `lower` standard errors.
    """
    shift = spread * NOISE if candidate != DEFAULT else np.zeros(40)
    error = shift.std(ddof=1) / math.sqrt(40)
    values, losses = shift + gain * error, -shift - lower * error
    score = Score(values, losses, np.ones(40), "accuracy", True)
    return Tried(candidate, 0 if candidate == PROBE else 20, score)


def broken(candidate):
    return Tried(candidate, 20, Score([math.nan], [math.nan], [1], "accuracy", True))


def test_the_default_stays_within_a_standard_error():
    for gain in (-2, 0, 0.9):
        candidate, why = choose([tried(PROBE), tried(DEFAULT), tried(HIGH, gain)])
        assert candidate == DEFAULT and "no other candidate is clearly better" in why


def test_a_better_candidate_replaces_it():
    finalists = [tried(PROBE), tried(DEFAULT), tried(HIGH, 1.1), tried(LORA, 3)]
    candidate, why = choose(finalists)
    assert candidate == LORA
    assert "compared with lp-ft at 0.2 of the rate, its accuracy is better" in why
    assert choose(finalists[:3])[0] == HIGH


def test_at_equal_accuracy_the_loss_decides():
    finalists = [tried(PROBE), tried(DEFAULT)]
    assert choose([*finalists, tried(HIGH, 0, 2.1)])[0] == HIGH
    assert choose([*finalists, tried(HIGH, 0, 1.9)])[0] == DEFAULT
    assert choose([*finalists, tried(HIGH, 0.5, 1.6)])[0] == HIGH


def test_the_probe_needs_a_better_metric():
    assert choose([tried(PROBE, 0.9, 9), tried(DEFAULT)])[0] == DEFAULT
    candidate, why = choose([tried(PROBE, 1.5), tried(DEFAULT), tried(HIGH)])
    assert candidate == PROBE
    assert "Fine-tuning hurt here, so only the head trains." in why


def test_candidates_that_are_not_finite_lose():
    candidate, why = choose([tried(PROBE), broken(DEFAULT), tried(HIGH)])
    assert candidate == HIGH
    candidate, why = choose([tried(PROBE), broken(DEFAULT), broken(HIGH)])
    assert candidate == PROBE and "nothing else has finite outputs" in why
    candidate, why = choose([broken(PROBE), broken(DEFAULT)])
    assert candidate == PROBE and "No trial has finite outputs" in why
    assert choose([broken(PROBE), tried(DEFAULT)])[0] == DEFAULT


def test_the_same_outputs_keep_the_default():
    same = tried(DEFAULT)
    other = Tried(HIGH, 20, same.score)
    assert choose([tried(PROBE), same, other])[0] == DEFAULT


def pilot_of(*trials, best, why="Why."):
    return Pilot(
        trials, best, why, labels=160, seed=3, steps=80, left_out=(Candidate("full"),)
    )


def test_the_table_names_each_candidate():
    trials = tried(PROBE), tried(DEFAULT, 0), broken(HIGH)
    lines = str(pilot_of(*trials, best=DEFAULT)).splitlines()
    assert lines[0].startswith("pilot on 160 training labels, ")
    error = trials[0].score.error
    assert f"accuracy 0.000 ± {error:.3f}  without steps" in lines[1]
    assert lines[2].endswith("accuracy 0.000 ± 0.000  after 20 steps  <- chosen")
    assert lines[3].endswith("lp-ft at 0.4 of the rate  not finite  after 20 steps")
    assert lines[4] == "  not tried within the budget: full"
    assert lines[5] == "Why."


def test_the_rows_are_plain_values():
    rows = pilot_of(tried(PROBE), broken(HIGH), best=PROBE).rows()
    assert rows[0]["candidate"] == "probe" and rows[0]["chosen"] is True
    assert rows[0]["estimate"] == pytest.approx(0) and rows[0]["steps"] == 0
    assert rows[1]["share"] == 0.4 and rows[1]["strategy"] == "lp-ft"
    assert rows[1]["estimate"] is rows[1]["loss"] is None
