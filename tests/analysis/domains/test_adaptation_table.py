"""AdaptationTable and gap_closed: shares computed by hand, notes, and errors."""

import numpy as np
import pytest

import keras_transfer as kt

AdaptationTable = kt.analysis.AdaptationTable
gap_closed = kt.analysis.gap_closed
BASE, BEST = [0.50, 0.52, 0.54], [0.95, 0.96, 0.97]


def table(**methods):
    return AdaptationTable(methods, source_only=BASE, on_target=BEST)


def test_share_by_hand():
    assert gap_closed(0.74, 0.52, 0.96) == pytest.approx(0.5)
    assert gap_closed(0.3, 0.52, 0.96) == pytest.approx(-0.5)
    assert gap_closed(0.52, 0.52, 0.96) == 0
    assert gap_closed(0.96, 0.52, 0.96) == 1


@pytest.mark.parametrize("best", [0.5, 0.4])
def test_share_without_a_gap_raises(best):
    with pytest.raises(ValueError, match="not defined"):
        gap_closed(0.6, 0.5, best)


@pytest.mark.parametrize("bad", [74.0, -0.1, np.nan, "0.5"])
def test_share_of_bad_accuracies_raises(bad):
    with pytest.raises(ValueError, match="accuracy|not numbers"):
        gap_closed(bad, 0.5, 0.9)


def test_rows_by_hand():
    rows = table(DANN=[0.70, 0.74, 0.78]).rows
    assert [row.method for row in rows] == ["source only", "DANN", "trained on target"]
    dann = rows[1]
    assert dann.mean == pytest.approx(0.74) and dann.num_seeds == 3
    assert dann.standard_deviation == pytest.approx(0.04)
    assert dann.gap_closed == pytest.approx(0.5) and dann.note == ""
    assert rows[0].gap_closed == 0 and rows[2].gap_closed == 1


def test_an_equal_loss_on_each_seed_is_clear_if_seeds_differ_as_much():
    # Each seed is 2 points below source-only, and the seeds differ by 2 points.
    row = table(CORAL=[0.48, 0.501, 0.519]).rows[1]
    assert row.note == "negative transfer (clear)" and row.gap_closed < 0


def test_a_loss_on_one_seed_only_is_within_noise():
    row = table(CORAL=[0.40, 0.55, 0.56]).rows[1]
    assert row.note == "negative transfer (within noise)"


def test_the_same_loss_on_each_seed_is_clear():
    row = AdaptationTable({"A": [0.25, 0.5]}, source_only=[0.5, 0.75], on_target=[1.0])
    assert row.rows[1].note == "negative transfer (clear)"


def test_one_seed_is_noted():
    found = AdaptationTable({"A": [0.4]}, source_only=[0.5], on_target=[0.9])
    assert found.rows[1].note == "negative transfer (one seed)"
    assert found.rows[1].standard_deviation is None and "± 0" not in str(found)


def test_no_gap_is_shown_as_undefined():
    found = AdaptationTable({"A": [0.6, 0.7]}, source_only=BASE[:2], on_target=[0.5])
    assert [row.gap_closed for row in found.rows] == [None, None, None]
    assert str(found).count("undefined") == 3
    assert found.rows[-1].note == "no better than source only"


def test_text():
    assert str(table(DANN=[0.70, 0.74, 0.78], CORAL=[0.48, 0.501, 0.519])) == (
        "method                    accuracy  gap closed\n"
        "source only        0.5200 ± 0.0200       0.0 %\n"
        "DANN               0.7400 ± 0.0400      50.0 %\n"
        "CORAL              0.5000 ± 0.0195      -4.5 %  negative transfer (clear)\n"
        "trained on target  0.9600 ± 0.0100     100.0 %\n"
        "3 seed(s); mean ± standard deviation"
    )


def test_target_reference_can_have_other_seeds():
    found = AdaptationTable({"A": BASE}, source_only=BASE, on_target=[0.9])
    assert "1 for 'trained on target'" in str(found)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"A": []}, "at least one"),
        ({"A": [0.5, 0.5]}, "seed by seed"),
        ({"A": [52.0, 53.0, 54.0]}, "Divide percentages"),
        ({"A": [0.5, np.nan, 0.5]}, "NaN"),
        ({"A": 0.5}, "shape"),
        ({"A": ["x", "y", "z"]}, "not numbers"),
        ({"source only": BASE}, "name of a reference"),
    ],
)
def test_bad_methods(given, message):
    with pytest.raises(ValueError, match=message):
        AdaptationTable(given, source_only=BASE, on_target=BEST)


def test_bad_references():
    with pytest.raises(ValueError, match="'source_only'.*at least one"):
        AdaptationTable({}, source_only=[], on_target=BEST)
    with pytest.raises(ValueError, match="'on_target'"):
        AdaptationTable({}, source_only=BASE, on_target=[2.0])
    with pytest.raises(TypeError, match="dict"):
        AdaptationTable([BASE], source_only=BASE, on_target=BEST)
