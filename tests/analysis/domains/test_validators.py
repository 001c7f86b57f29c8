"""Validators: values computed by hand or with NumPy, limits, and errors."""

import ml_dtypes
import numpy as np
import pytest
from sklearn.metrics import accuracy_score

import keras_transfer as kt
from keras_transfer.analysis.domains import validators

source_accuracy = kt.analysis.source_accuracy
target_entropy = kt.analysis.target_entropy
information_maximization = kt.analysis.information_maximization
soft_neighborhood_density = kt.analysis.soft_neighborhood_density
importance_weighted_risk = kt.analysis.importance_weighted_risk
deep_embedded_validation = kt.analysis.deep_embedded_validation
OF_TARGET = (target_entropy, information_maximization, soft_neighborhood_density)
RISKS = (importance_weighted_risk, deep_embedded_validation)


def logits(count=40, classes=5, seed=0, scale=2.0):
    return np.random.default_rng(seed).normal(size=(count, classes)) * scale


def softmax(values):
    powers = np.exp(values)
    return powers / powers.sum(1, keepdims=True)


# Source accuracy.


def test_accuracy_matches_scikit_learn():
    y, outputs = np.arange(40) % 5, logits()
    expected = accuracy_score(y, outputs.argmax(1))
    assert source_accuracy(y, outputs, from_logits=True) == expected
    assert source_accuracy(y, softmax(outputs)) == expected
    assert source_accuracy(np.eye(5)[y], softmax(outputs)) == expected
    assert source_accuracy(y[:, None].astype("float32"), softmax(outputs)) == expected


def test_accuracy_of_one_column_has_two_classes():
    column = np.array([0.9, 0.2, 0.4, 0.7])
    assert source_accuracy([1, 0, 1, 1], column) == 0.75
    assert source_accuracy([1, 0, 1, 1], column[:, None]) == 0.75
    found = source_accuracy([1, 0, 1, 1], [3.0, -2.0, -0.1, 0.5], from_logits=True)
    assert found == 0.75


# Entropy and information.


def test_entropy_by_hand():
    outputs = [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.25, 0.25, 0.5]]
    assert target_entropy(outputs) == pytest.approx(-(1 + 0 + 1.5) * np.log(2) / 3)


def test_information_by_hand():
    # The mean is (.75, .25); one row is certain and one is not.
    found = information_maximization([[1.0, 0.0], [0.5, 0.5]])
    marginal = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert found == pytest.approx(marginal - np.log(2) / 2)


def test_information_is_0_if_all_predictions_are_equal():
    assert information_maximization(np.full((7, 3), 1 / 3)) < 1e-12
    assert information_maximization(np.tile([0.0, 1.0], (7, 1))) == 0.0
    assert target_entropy(np.tile([0.0, 1.0], (7, 1))) == 0.0  # not detected


def test_limits_are_the_logarithm_of_the_classes():
    assert information_maximization(np.eye(6)) == pytest.approx(np.log(6))
    assert target_entropy(np.full((2, 6), 1 / 6)) == pytest.approx(-np.log(6))


# Soft neighborhood density.


def density(probabilities, temperature=0.05):
    """Return equations 2 and 3 of the paper, computed pair by pair."""
    f = probabilities / np.linalg.norm(probabilities, axis=1, keepdims=True)
    total = 0.0
    for i in range(len(f)):
        others = [np.exp(f[i] @ f[j] / temperature) for j in range(len(f)) if j != i]
        p = np.array(others) / sum(others)
        total -= (p * np.log(p)).sum() / len(f)
    return total


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_density_matches_the_equations_of_the_paper(temperature):
    p = softmax(logits())
    found = soft_neighborhood_density(p, temperature=temperature)
    assert found == pytest.approx(density(p, temperature), rel=1e-9)


def test_density_in_chunks_is_the_same(monkeypatch):
    p = softmax(logits())
    whole = soft_neighborhood_density(p)
    monkeypatch.setattr(validators, "CHUNK", 7 * len(p))  # the last chunk is smaller
    assert soft_neighborhood_density(p) == pytest.approx(whole, rel=1e-12)


def test_density_ranks_collapse_over_clusters_over_scatter():
    clusters = softmax(20 * np.eye(5)[np.arange(40) % 5])
    assert soft_neighborhood_density(clusters) == pytest.approx(np.log(7), abs=1e-2)
    scattered = softmax(logits(scale=1.0))
    assert soft_neighborhood_density(clusters, temperature=0.01) > (
        soft_neighborhood_density(scattered, temperature=0.01)
    )
    collapsed = np.tile([0.0, 1.0], (40, 1))
    assert soft_neighborhood_density(collapsed) == pytest.approx(np.log(39))


def test_density_of_a_small_temperature_is_finite():
    assert 0 <= soft_neighborhood_density(softmax(logits()), temperature=1e-6) < 4


@pytest.mark.parametrize("temperature", [0, -1.0, np.inf, np.nan, True])
def test_bad_temperature_raises(temperature):
    with pytest.raises(ValueError, match="temperature"):
        soft_neighborhood_density(softmax(logits()), temperature=temperature)


def test_density_of_two_examples_raises():
    with pytest.raises(ValueError, match="fewer than 3"):
        soft_neighborhood_density(softmax(logits(2)))


# Risks.


def test_weighted_risk_by_hand():
    assert importance_weighted_risk([1.0, 2.0, 4.0], [0.5, 0.5, 2.0]) == 9.5 / 3


def test_dev_matches_the_algorithm_of_the_paper():
    rng = np.random.default_rng(0)
    losses, ratios = rng.random(50), rng.exponential(size=50)
    weighted = losses * ratios
    eta = -np.cov(weighted, ratios)[0, 1] / np.var(ratios, ddof=1)
    expected = weighted.mean() + eta * ratios.mean() - eta
    assert deep_embedded_validation(losses, ratios) == pytest.approx(expected)


def test_dev_by_hand():
    # If every loss is 1, the risk is 1 for any ratios.
    assert deep_embedded_validation([1, 1, 1], [2.0, 1, 0.6]) == pytest.approx(1.0)
    assert importance_weighted_risk([1, 1, 1], [2.0, 1, 0.6]) == pytest.approx(1.2)


def test_dev_varies_less_than_the_weighted_risk():
    # N(0, 1) to N(1, 1) with the true ratios, and the loss 1 / (1 + exp(-x)).
    found = []
    for seed in range(200):
        x = np.random.default_rng(seed).normal(size=100)
        given = 1 / (1 + np.exp(-x)), np.exp(x - 0.5)
        found.append([risk(*given) for risk in RISKS])
    weighted, controlled = np.transpose(found)
    x = np.random.default_rng(9).normal(1, size=10**6)
    risk = np.mean(1 / (1 + np.exp(-x)))
    assert weighted.mean() == pytest.approx(risk, abs=0.03)
    assert controlled.mean() == pytest.approx(risk, abs=0.03)
    assert controlled.std() < 0.5 * weighted.std()


def test_dev_of_equal_weights_is_the_mean_loss():
    assert deep_embedded_validation([1.0, 2.0, 6.0], [1.0, 1.0, 1.0]) == 3.0


def test_dev_of_scaled_weights_raises():
    ratios = np.array([0.2, 0.4, 3.0])
    with pytest.raises(ValueError, match="ratios, not .weights"):
        deep_embedded_validation([1, 0, 1], ratios / ratios.mean())


@pytest.mark.parametrize("risk", RISKS)
@pytest.mark.parametrize(
    "losses, weights, message",
    [
        ([1.0, 2.0], [1.0], "2 examples, but .* has 1"),
        ([], [], "at least one"),
        ([[1.0, 2.0]], [1.0], "one number for each"),
        ([1.0, np.nan], [1.0, 1.0], "`losses` are NaN"),
        ([1.0, 2.0], [1.0, np.inf], "infinite"),
        ([1.0, -2.0], [1.0, 1.0], "negative"),
        ([1.0, 2.0], [0.0, 0.0], "are 0"),
    ],
)
def test_bad_losses_or_weights_raise(risk, losses, weights, message):
    with pytest.raises(ValueError, match=message):
        risk(losses, weights)


def test_dev_of_one_example_raises():
    with pytest.raises(ValueError, match="at least 2"):
        deep_embedded_validation([1.0], [2.0])


# Outputs.


@pytest.mark.parametrize("validator", OF_TARGET)
def test_logits_and_probabilities_agree(validator):
    values = logits()
    expected = validator(softmax(values))
    assert validator(values, from_logits=True) == pytest.approx(expected)
    assert validator(values + 1000, from_logits=True) == pytest.approx(expected)
    narrow = softmax(values).astype("float32")
    assert validator(narrow) == pytest.approx(expected, rel=1e-4)
    tiny = softmax(values).astype(ml_dtypes.bfloat16)
    assert validator(tiny) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("validator", OF_TARGET)
def test_one_column_gives_the_same_score_as_two(validator):
    column = np.array([0.1, 0.8, 0.6, 0.3])
    both = np.stack([1 - column, column], axis=1)
    assert validator(column[:, None]) == pytest.approx(validator(both))
    odds = np.log(column / (1 - column))
    assert validator(odds, from_logits=True) == pytest.approx(validator(both))


@pytest.mark.parametrize("validator", OF_TARGET)
@pytest.mark.parametrize(
    "outputs, given, message",
    [
        (logits(), {}, "pass from_logits=True"),
        (softmax(logits()), {"from_logits": True}, "already probabilities"),
        (np.full((4, 3), 0.9), {}, "add up to 2.7"),
        (np.zeros((0, 3)), {}, "at least one row"),
        (np.zeros((4, 3, 3)), {}, "classifier"),
        (np.full((4, 3), np.nan), {}, "NaN"),
        (np.full((4, 1), 1.2), {}, "not probabilities"),
        (np.full((4, 3), "a"), {}, "array of numbers"),
    ],
)
def test_bad_outputs_raise(validator, outputs, given, message):
    with pytest.raises(ValueError, match=message):
        validator(outputs, **given)


def test_from_logits_that_is_not_a_bool_raises():
    with pytest.raises(TypeError, match="True or False"):
        target_entropy(softmax(logits()), from_logits=None)


@pytest.mark.parametrize(
    "y, message",
    [
        (np.zeros(40), "at most one class"),
        (np.arange(39) % 5, "39 examples"),
        (np.arange(40) % 6, "outside 0 to 4"),
        (np.arange(40) % 5 - 1, "outside 0 to 4"),
        (np.full(40, 0.5), "whole numbers"),
        (np.full((40, 5), 0.2), "one-hot"),
        (np.array(["a", "b"] * 20), "not numbers"),
        (np.full(40, np.nan), "NaN"),
    ],
)
def test_bad_labels_raise(y, message):
    with pytest.raises(ValueError, match=message):
        source_accuracy(y, softmax(logits()))


@pytest.mark.parametrize("level", [0.04, 1.0])
def test_dev_of_nearly_equal_ratios_is_the_mean_loss(level):
    rng = np.random.default_rng(0)
    losses, noise = rng.exponential(size=64), rng.normal(size=64)
    found = deep_embedded_validation(losses, level + 1e-5 * noise)
    assert found == pytest.approx(losses.mean(), rel=1e-3)


def test_dev_of_ratios_of_zero_raises():
    with pytest.raises(ValueError, match="All ratios are 0"):
        deep_embedded_validation([1.0, 2.0], [0.0, 0.0])
