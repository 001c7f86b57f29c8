"""entity_scores: whole entities count, by type and together."""

import pytest

from keras_transfer.analysis import entity_scores

TRUE = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-PER"]]


def test_a_case_solved_by_hand():
    # Found: one LOC. Missed: both PER, one of them by half. Invented: half a PER.
    scores = entity_scores(TRUE, [["B-PER", "O", "O", "B-LOC"], ["O", "O"]])
    assert scores.precision == 1 / 2 and scores.recall == 1 / 3
    assert scores.f1 == pytest.approx(0.4) and scores.support == 3
    assert scores.by_type["LOC"]["f1"] == 1.0 and scores.by_type["PER"]["f1"] == 0.0
    assert scores.by_type["PER"]["support"] == 2
    lines = str(scores).splitlines()
    assert len(lines) == 4 and lines[-1].split() == [
        "all",
        "0.500",
        "0.333",
        "0.400",
        "3",
    ]


def test_perfect_and_empty_predictions():
    assert entity_scores(TRUE, TRUE).f1 == 1.0
    nothing = [["O"] * len(row) for row in TRUE]
    assert entity_scores(TRUE, nothing).f1 == 0.0
    assert entity_scores(nothing, nothing).support == 0


def test_input_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="2 sentences, and predicted tags of 1"):
        entity_scores(TRUE, TRUE[:1])
    with pytest.raises(ValueError, match="Sentence 1 has 2 tags, but 1 predicted"):
        entity_scores(TRUE, [TRUE[0], ["O"]])
    with pytest.raises(ValueError, match=r"\['NOUN'\] are not in the form"):
        entity_scores([["NOUN"]], [["NOUN"]])
    with pytest.raises(ValueError, match="at least one"):
        entity_scores([], [])
