"""The choice of a candidate, from outputs that are made here."""

import numpy as np
import pytest

from keras_transfer.fine_tuning.adaptation.candidates import SOURCE_ONLY
from keras_transfer.fine_tuning.adaptation.candidates import Trial
from keras_transfer.fine_tuning.adaptation.choice import choose
from keras_transfer.fine_tuning.adaptation.choice import guesses

CLASSES, COUNT = 3, 600


class Case:
    """Outputs of candidates of given accuracies, on clusters that both domains have."""

    def __init__(self):
        self.rng = np.random.default_rng(0)
        self.y = np.arange(COUNT) % CLASSES
        centers = 4 * np.eye(CLASSES)
        self.features = tuple(
            centers[self.y] + self.rng.normal(0, 0.5, (COUNT, CLASSES)) + shift
            for shift in (0, 3)
        )

    def predicted(self, accuracy, other=None):
        """Return probabilities; wrong ones are of the next class, or of `other`."""
        wrong = (self.y + 1) % CLASSES if other is None else other
        right = self.rng.random(COUNT) < accuracy
        return 0.8 * np.eye(CLASSES)[np.where(right, self.y, wrong)] + 0.2 / CLASSES

    def trial(self, name, on_target, on_source=0.95):
        outputs = [self.predicted(on_source), self.predicted(on_target)]
        return Trial(name, [], *outputs, 1.0)

    def choose(self, *trials):
        return choose(trials, self.features, self.y)


@pytest.fixture
def case():
    return Case()


def test_the_clearly_better_candidate_is_chosen(case):
    trials = [case.trial(SOURCE_ONLY, 0.6), case.trial("A", 0.8), case.trial("B", 0.7)]
    choice = case.choose(*trials)
    assert choice.chosen == "A" and "better than source only" in choice.why
    found = {each.name: each for each in choice.scores}
    assert found["A"].agreement > found["B"].agreement > found[SOURCE_ONLY].agreement


def test_source_only_stays_if_candidates_harm(case):
    accuracies = {SOURCE_ONLY: 0.8, "A": 0.6, "B": 0.5}
    choice = case.choose(*(case.trial(*each) for each in accuracies.items()))
    assert (
        choice.chosen == SOURCE_ONLY and "No candidate is clearly better" in choice.why
    )


def test_equal_candidates_leave_source_only(case):
    reference = case.trial(SOURCE_ONLY, 0.7)
    choice = case.choose(reference, reference._replace(name="A"))
    assert choice.chosen == SOURCE_ONLY


def test_a_candidate_that_fails_on_the_source_is_refused(case):
    trials = [case.trial(SOURCE_ONLY, 0.6), case.trial("A", 0.9, on_source=0.7)]
    choice = case.choose(*trials)
    assert choice.chosen == SOURCE_ONLY
    assert "points on held-out source" in choice.scores[1].refused
    assert choice.why == "No candidate passed the guards."


def test_a_candidate_without_a_class_is_refused(case):
    # All of class 2 became class 0.
    trial = case.trial("A", 0.9)
    outputs = trial.on_target.copy()
    outputs[outputs.argmax(1) == 2] = [0.8, 0.1, 0.1]
    choice = case.choose(
        case.trial(SOURCE_ONLY, 0.6), trial._replace(on_target=outputs)
    )
    assert "hardly predicts class 2" in choice.scores[1].refused


def test_a_diverged_candidate_loses_and_is_named(case):
    diverged = Trial("A", [], None, None, 1.0)
    trials = [case.trial(SOURCE_ONLY, 0.6), diverged, case.trial("B", 0.8)]
    choice = case.choose(*trials)
    assert choice.chosen == "B" and "diverged" in choice.scores[1].refused
    assert choice.scores[1].agreement is None


def test_agreement_alone_does_not_decide(case):
    """Candidates that share an error agree, but do not explain the source."""
    outputs = case.predicted(0.2)  # most examples are of the next class
    shared = [case.trial(name, 0.2)._replace(on_target=outputs) for name in "ABC"]
    choice = case.choose(case.trial(SOURCE_ONLY, 0.7), *shared)
    assert choice.scores[1].agreement > choice.scores[0].agreement
    assert choice.chosen == SOURCE_ONLY


def test_two_candidates_do_not_vote(case):
    """The more certain one would always agree with their mean."""
    reference, other = case.trial(SOURCE_ONLY, 0.8), case.trial("A", 0.5)
    certain = np.eye(CLASSES)[other.on_target.argmax(1)]
    choice = case.choose(reference, other._replace(on_target=certain))
    assert [each.agreement for each in choice.scores] == [None, None]
    assert choice.chosen == SOURCE_ONLY


def test_a_model_that_guesses_on_the_source_is_told(case):
    assert "most frequent class" in guesses(case.trial("A", 0.9, 0.34), case.y)
    assert guesses(case.trial("A", 0.1, 0.9), case.y) == ""
