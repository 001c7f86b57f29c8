"""The pilot of fine_tune in a report: its content, its table and its findings."""

import json

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer.fine_tuning.candidate import Candidate
from keras_transfer.fine_tuning.pilot.record import Pilot
from keras_transfer.fine_tuning.pilot.record import Tried
from keras_transfer.fine_tuning.pilot.scores import Score
from tests import tiny
from tests.analysis.report.test_findings import data
from tests.analysis.report.test_findings import history_of
from tests.analysis.report.test_findings import NOTHING
from tests.analysis.report.test_findings import SPARSE

PROBE = Candidate("probe")
LPFT, HIGH = Candidate("lp-ft", 0.2), Candidate("lp-ft", 0.4)
FULL, LORA = Candidate("full", 0.2), Candidate("lora", 1.0)
WHY = "The pilot chose this one: it is better."
HURT = "The pilot found that fine-tuning hurt: "


def score(mean, metric="accuracy", larger=True):
    """Return a score of 4 groups of 10 examples with a standard error of 0.01."""
    values = mean + 0.01 * np.sqrt(3) * np.array([1, -1, 1, -1])
    losses = values if metric == "loss" else np.full(4, 0.5)
    return Score(values if larger else -values, losses, [10] * 4, metric, larger)


def history_with(*tried, chosen, **kwargs):
    """Return a History with a pilot that tried `(candidate, steps, mean)`."""
    history = history_of(loss=[3.0, 2.0, 1.0])
    rows = tuple(Tried(each, n, score(mean, **kwargs)) for each, n, mean in tried)
    history.pilot = Pilot(
        rows, chosen, WHY, labels=1000, seed=0, steps=1234, left_out=()
    )
    return history


def usual(chosen=HIGH):
    tried = (PROBE, 0, 0.8), (LPFT, 20, 0.7), (HIGH, 20, 0.9), (FULL, 9, 0.75)
    return history_with(*tried, chosen=chosen)


def found(history):
    return kt.report(tiny.mlp(), history).to_dict()["findings"]


# The content.


def test_the_content_has_the_rows_of_the_pilot():
    history = usual()
    report = kt.report(tiny.mlp(), history)
    pilot = json.loads(report.to_json())["pilot"]
    assert pilot == report.to_dict()["pilot"]
    assert pilot == {
        "why": WHY,
        "labels": 1000,
        "steps": 1234,
        "tried": history.pilot.rows(),
    }
    assert [row["chosen"] for row in pilot["tried"]] == [False, False, True, False]
    assert pilot["tried"][2]["estimate"] == pytest.approx(0.9)
    assert pilot["tried"][2]["error"] == pytest.approx(0.01)


def test_values_that_are_not_finite_are_null():
    tried = Tried(PROBE, 0, Score([0.8], [0.5], [40], "accuracy", True))
    history = history_of(loss=[2.0, 1.0])
    history.pilot = Pilot((tried,), PROBE, WHY, labels=40, seed=0, steps=0, left_out=())
    report = kt.report(tiny.mlp(), history)
    (row,) = json.loads(report.to_json())["pilot"]["tried"]
    assert (row["estimate"], row["error"]) == (0.8, None)
    assert row["chosen"] is True
    line = next(x for x in str(report).splitlines() if x.startswith("probe"))
    assert line.split() == ["probe", "without", "steps", "0.8", "0.5", "yes"]


@pytest.mark.parametrize("given", ["no history", "dict", "History", "None"])
def test_without_a_pilot_the_report_is_as_before(given):
    history = None if given == "no history" else history_of(loss=[3.0, 2.0, 1.0])
    if given == "dict":
        history = history.history
    if given == "None":
        history.pilot = None
    report = kt.report(tiny.mlp(), history)
    content = report.to_dict()
    assert content["pilot"] is None
    assert "pilot" not in " ".join([*content["not_recorded"], *content["findings"]])
    for text in (str(report), report.to_markdown(), report.to_html()):
        assert "pilot" not in text.lower()
    # A report of an earlier version lacks the key.
    del content["pilot"]
    assert str(kt.analysis.Report(content)) == str(report)


# The table.


def table(history):
    """Return the cells of the table in the Markdown, and the sentences above it."""
    markdown = kt.report(tiny.mlp(), history).to_markdown().split("\n\n")
    first = markdown.index("## Pilot") + 1
    last = markdown.index("## Cost by phase")
    rows = markdown[last - 1].splitlines()
    cells = [[each.strip() for each in row.strip("|").split("|")] for row in rows]
    return [cells[0], *cells[2:]], markdown[first : last - 1]


def test_the_table_shows_each_candidate():
    rows, notes = table(usual())
    assert rows == [
        ["candidate", "steps", "held-out accuracy ± standard error", "loss", "chosen"],
        ["probe", "without steps", "0.8 ± 0.01", "0.5", ""],
        ["lp-ft at 0.2 of the rate", "20", "0.7 ± 0.01", "0.5", ""],
        ["lp-ft at 0.4 of the rate", "20", "0.9 ± 0.01", "0.5", "yes"],
        ["full at 0.2 of the rate", "9", "0.75 ± 0.01", "0.5", ""],
    ]
    assert notes[0] == WHY
    assert notes[1].startswith("The pilot used 1,000 training labels")
    assert notes[1].endswith("and 1,234 steps.")
    assert "candidates with the most steps" in notes[2]


def test_all_candidates_with_the_same_steps_need_no_further_sentence():
    _, notes = table(history_with((PROBE, 0, 0.8), (LPFT, 20, 0.9), chosen=LPFT))
    assert len(notes) == 2


def test_the_loss_is_shown_once_if_it_is_the_metric():
    tried = (PROBE, 0, 0.8), (LPFT, 20, 0.7)
    history = history_with(*tried, chosen=LPFT, metric="loss", larger=False)
    rows, _ = table(history)
    assert rows[0] == ["candidate", "steps", "held-out loss ± standard error", "chosen"]
    assert rows[2] == ["lp-ft at 0.2 of the rate", "20", "0.7 ± 0.01", "yes"]


def test_candidates_that_are_not_finite_are_shown():
    rows, _ = table(history_with((PROBE, 0, 0.8), (LPFT, 20, np.nan), chosen=PROBE))
    assert rows[2][1:] == ["20", "not finite", "-", ""]


def test_text_and_page_show_the_table():
    report = kt.report(tiny.mlp(), usual())
    text = str(report)
    assert text.index("\nPilot\n=====\n" + WHY) < text.index("\nCost by phase\n")
    lines = [each for each in text.splitlines() if " ± 0.01" in each]
    assert len(lines) == 4 and lines[2].endswith("yes")
    page = report.to_html()
    assert page.index(f"<h2>Pilot</h2>\n<p>{WHY}</p>") < page.index("Cost by phase")
    assert "<td>20</td><td>0.9 ± 0.01</td><td>0.5</td>" in page


# The findings.


def test_a_pilot_that_chose_another_candidate_is_not_notable():
    for chosen in (LPFT, HIGH):
        (sentence,) = found(usual(chosen))
        assert sentence.startswith(NOTHING)
        assert "fine-tuning hurt" in sentence and "outputs in the pilot" in sentence


def test_fine_tuning_that_hurt_is_compared_with_the_default_candidate():
    tried = (PROBE, 0, 0.8), (LPFT, 20, 0.7), (HIGH, 20, 0.7), (FULL, 9, 0.75)
    (sentence,) = found(history_with(*tried, chosen=PROBE))
    assert sentence == (
        f"{HURT}the held-out accuracy of the head alone, 0.8 ± 0.01, is better than "
        "that of 'lp-ft at 0.2 of the rate' after 20 steps, 0.7 ± 0.01, by more than "
        "the standard error of the difference. So only the head trained."
    )
    tried = (PROBE, 0, 0.8), (LPFT, 20, np.nan), (HIGH, 20, 0.6), (FULL, 9, 0.5)
    first, second = found(history_with(*tried, chosen=PROBE))
    assert "'lp-ft at 0.4 of the rate' after 20 steps, 0.6 ± 0.01" in first
    assert "1 of 4 candidates" in second


@pytest.mark.parametrize("larger", [True, False])
def test_a_better_candidate_than_the_default_one_is_named(larger):
    means = (0.8, 0.6, 0.7) if larger else (0.6, 0.8, 0.7)
    tried = zip((PROBE, LPFT, HIGH), (0, 20, 20), means, strict=True)
    kwargs = dict(metric="accuracy" if larger else "loss", larger=larger)
    (sentence,) = found(history_with(*tried, chosen=PROBE, **kwargs))
    assert sentence.endswith(
        "So only the head trained. The best other one is 'lp-ft at 0.4 of the rate', "
        "0.7 ± 0.01."
    )


def test_a_probe_without_a_finite_finalist_was_not_compared():
    tried = (PROBE, 0, 0.8), (LPFT, 20, np.nan), (FULL, 9, 0.5)
    (sentence,) = found(history_with(*tried, chosen=PROBE))
    assert sentence == (
        "In the pilot, the outputs of 1 of 3 candidates were not finite: 'lp-ft at 0.2 "
        "of the rate'."
    )
    (sentence,) = found(history_with((PROBE, 0, 0.8), chosen=PROBE))
    assert sentence.startswith(NOTHING) and "hurt" not in sentence


def test_many_candidates_that_are_not_finite_are_counted():
    tried = [(each, 9, np.nan) for each in (LPFT, HIGH, FULL, LORA)]
    tried.append((Candidate("gradual", 0.2), 9, np.nan))
    (sentence,) = found(history_with((PROBE, 0, np.nan), *tried, chosen=PROBE))
    assert "the outputs of 6 of 6 candidates were not finite: 'probe', " in sentence
    assert sentence.endswith("'full at 0.2 of the rate' and 2 more.")


@pytest.mark.slow
def test_the_history_of_fine_tune_has_the_pilot(tmp_path):
    for _ in range(2):  # the second call finds the run finished
        keras.utils.set_random_seed(0)
        model = tiny.mlp()
        rate = keras.optimizers.AdamW(1e-2)
        model.compile(
            rate, SPARSE(from_logits=True), metrics=["accuracy"], jit_compile=False
        )
        settings = dict(epochs=6, directory=tmp_path / "run", verbose=0)
        history = kt.fine_tune(model, data(), **settings)
        report = kt.report(model, history)
        pilot = report.to_dict()["pilot"]
        assert pilot["tried"] == history.pilot.rows()
        assert pilot["labels"] == 240 and pilot["why"] in str(report)
        (chosen,) = (row for row in pilot["tried"] if row["chosen"])
        assert f"The pilot chose {chosen['candidate']}" in pilot["why"]
    assert kt.report(model, history.history).to_dict()["pilot"] is None
