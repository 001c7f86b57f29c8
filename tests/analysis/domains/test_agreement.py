"""Agreement with an ensemble, and reverse accuracy: values by hand, and errors."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import keras_transfer as kt
from keras_transfer.analysis.domains.agreement import INVERSE_PENALTY

ensemble_agreement = kt.analysis.ensemble_agreement
reverse_accuracy = kt.analysis.reverse_accuracy
RNG = np.random.default_rng(0)


def clusters(shift, count=60):
    """Return three clusters, moved by `shift`, and their classes."""
    y = np.arange(count) % 3
    centers = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    return centers[y] + RNG.normal(0, 0.5, (count, 2)) + shift, y


def test_agreement_by_hand():
    first = [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]]
    second = [[0.8, 0.2], [0.4, 0.6], [0.1, 0.9], [0.45, 0.55]]
    # The means choose 0, 1, 1, 1.
    assert ensemble_agreement([first, second]).tolist() == [0.75, 1.0]


def test_agreement_prefers_the_best_of_models_that_err_differently():
    y = RNG.integers(4, size=2000)
    outputs = []
    for accuracy in (0.9, 0.7, 0.6, 0.5):
        wrong = RNG.integers(4, size=len(y))
        outputs.append(np.eye(4)[np.where(RNG.random(len(y)) < accuracy, y, wrong)])
    found = ensemble_agreement(outputs)
    assert found.tolist() == sorted(found, reverse=True)


def test_agreement_of_logits_and_of_one_column():
    logits = RNG.normal(size=(3, 20, 4))
    powers = np.exp(logits)
    probabilities = powers / powers.sum(-1, keepdims=True)
    expected = ensemble_agreement(list(probabilities))
    assert ensemble_agreement(list(logits), from_logits=True).tolist() == list(expected)
    columns = [[0.9, 0.2], [0.8, 0.4], [0.1, 0.1]]
    assert ensemble_agreement(columns).tolist() == [1.0, 1.0, 0.5]


def test_reverse_accuracy_is_that_of_scikit_learn():
    (source, y), (target, other) = clusters(0), clusters(2)
    predicted = np.where(RNG.random(len(other)) < 0.3, (other + 1) % 3, other)
    classifier = LogisticRegression(C=INVERSE_PENALTY)
    classifier.fit(StandardScaler().fit_transform(target), predicted)
    expected = classifier.score(StandardScaler().fit_transform(source), y)
    found = reverse_accuracy(source, y, target, np.eye(3)[predicted])
    assert found == pytest.approx(expected)
    assert reverse_accuracy(source, np.eye(3)[y], target, np.eye(3)[predicted]) == found


def test_reverse_accuracy_orders_predictions_by_their_accuracy():
    (source, y), (target, other) = clusters(0), clusters([6.0, -3.0])
    found = []
    for wrong in (0.0, 0.5, 0.9):
        predicted = np.where(np.arange(len(other)) < wrong * len(other), 0, other)
        found.append(reverse_accuracy(source, y, target, np.eye(3)[predicted]))
    assert found[0] > 0.9 and found == sorted(found, reverse=True)


def test_predictions_of_one_class_have_its_share():
    source, y = clusters(0)
    found = reverse_accuracy(source, y, source, np.eye(3)[[1] * len(y)])
    assert found == np.mean(y == 1)


@pytest.mark.parametrize(
    "outputs, match",
    [
        ([[[0.5, 0.5]]], "1 model"),
        ([[[0.5, 0.5]], [[0.2, 0.3, 0.5]]], "shapes"),
        ([[[0.5, 0.5]], [[3.0, -1.0]]], "from_logits"),
        ([[[0.5, 0.5]], [[np.nan, 0.5]]], "not finite|NaN"),
    ],
)
def test_wrong_outputs_raise(outputs, match):
    with pytest.raises(ValueError, match=match):
        ensemble_agreement(outputs)


def test_counts_that_differ_raise():
    source, y = clusters(0)
    with pytest.raises(ValueError, match="`target` has 60.*`outputs` has 59"):
        reverse_accuracy(source, y, source, np.eye(3)[y][1:])
    with pytest.raises(ValueError, match="`source` has 60.*`y` has 58"):
        reverse_accuracy(source, y[2:], source, np.eye(3)[y])
