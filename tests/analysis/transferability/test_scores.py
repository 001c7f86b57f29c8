"""LogME, LEEP and the H-score: against oracles, cases by hand, and bad input."""

import keras
import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import BayesianRidge

from keras_transfer.analysis import h_score
from keras_transfer.analysis import leep
from keras_transfer.analysis import log_me

RNG = np.random.default_rng(0)


def task(count, size, signal=1.0, classes=3):
    """Return features and labels. With `signal=0` the features are noise."""
    labels = np.arange(count) % classes
    means = RNG.normal(size=(classes, size))
    return signal * means[labels] + RNG.normal(size=(count, size)), labels


def evidence_by_sklearn(features, column):
    """Return the log evidence per example of scikit-learn's Bayesian regression."""
    flat = dict(alpha_1=0, alpha_2=0, lambda_1=0, lambda_2=0)
    ridge = BayesianRidge(
        max_iter=5000, tol=1e-12, fit_intercept=False, compute_score=True, **flat
    )
    return ridge.fit(features, column).scores_[-1] / len(column)


@pytest.mark.parametrize(("count", "size"), [(60, 5), (60, 59), (40, 90)])
def test_log_me_is_the_evidence_of_bayesian_regression(count, size):
    features, labels = task(count, size)
    expected = [evidence_by_sklearn(features, labels == each) for each in range(3)]
    assert log_me(features, labels) == pytest.approx(np.mean(expected), abs=1e-4)
    numbers = features[:, :2] @ RNG.normal(size=(2, 2)) + RNG.normal(size=(count, 2))
    expected = [evidence_by_sklearn(features, column) for column in numbers.T]
    found = log_me(features, numbers, regression=True)
    assert found == pytest.approx(np.mean(expected), abs=1e-4)
    first = log_me(features, numbers[:, 0], regression=True)
    assert first == pytest.approx(expected[0], abs=1e-4)


def test_log_me_of_dependent_features_is_that_of_the_independent_ones():
    features, labels = task(50, 4)
    doubled = np.concatenate([features, features], axis=1) / np.sqrt(2)
    assert log_me(doubled, labels) == pytest.approx(log_me(features, labels), abs=1e-9)


def test_log_me_of_a_perfect_fit_is_finite():
    labels = np.arange(30) % 3
    assert 5 < log_me(np.eye(3)[labels], labels) < 20
    assert np.isfinite(log_me(RNG.normal(size=(30, 64)), labels))


@pytest.mark.parametrize("count", [40, 400])
def test_h_score_is_its_formula(count):
    features, labels = task(count, 60)
    means = np.stack([features[labels == each].mean(0) for each in labels])
    between = np.cov(means, rowvar=False)
    plain = np.trace(np.linalg.pinv(np.cov(features, rowvar=False)) @ between)
    assert h_score(features, labels, shrinkage=False) == pytest.approx(plain)
    fitted = LedoitWolf().fit(features)
    expected = np.trace(np.linalg.inv(fitted.covariance_) @ between)
    expected *= 1 - fitted.shrinkage_
    assert h_score(features, labels) == pytest.approx(expected)


def test_h_score_of_exact_classes_is_their_number_less_one():
    labels = np.arange(40) % 4
    exact = h_score(np.eye(4)[labels], labels, shrinkage=False)
    assert exact == pytest.approx(3)


def test_only_the_regularized_h_score_is_low_for_many_features_of_noise():
    features, labels = task(60, 200, signal=0)
    assert h_score(features, labels, shrinkage=False) == pytest.approx(2)
    assert h_score(features, labels) < 0.5


def test_leep_by_hand():
    # Two source classes. P(y=0 | z) = (.9 + .6) / (.9 + .6 + .2), .5 / 1.3.
    shares = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    of_first, of_second = 1.5 / 1.7, 0.5 / 1.3
    likelihood = shares @ [of_first, of_second]
    likelihood[2] = 1 - likelihood[2]
    expected = np.log(likelihood).mean()
    assert leep(shares, [0, 0, 1]) == pytest.approx(expected)
    assert leep(np.log(shares), [0, 0, 1], from_logits=True) == pytest.approx(expected)
    unused = np.insert(shares, 1, 0, axis=1)  # a class that is never predicted
    assert leep(unused, [5, 5, 9]) == pytest.approx(expected)


@pytest.mark.parametrize("score", [log_me, h_score])
def test_scores_rank_features_by_their_signal(score):
    labels = np.arange(120) % 3
    noise, means = RNG.normal(size=(120, 20)), RNG.normal(size=(3, 20))
    found = [score(signal * means[labels] + noise, labels) for signal in (0, 0.5, 1, 2)]
    assert found == sorted(found)


@pytest.mark.parametrize("score", [log_me, h_score])
def test_labels_may_be_columns_one_hot_rows_or_any_numbers(score):
    features, labels = task(60, 8)
    expected = score(features, labels)
    assert score(features.reshape(60, 2, 4), labels[:, None]) == expected
    assert score(features, keras.utils.to_categorical(labels)) == expected
    assert score(features.tolist(), 10 * labels - 3) == expected


@pytest.mark.parametrize(
    ("features", "labels", "match"),
    [
        (np.ones(6), [0, 1] * 3, "need a row for each"),
        (np.ones((1, 4)), [0], r"is 1 example\(s\)"),
        (np.full((6, 4), np.nan), [0, 1] * 3, "24 of 24 values of `features` are NaN"),
        (np.eye(6), [0, 1], "2 labels for 6 examples"),
        (np.eye(6), [1] * 6, "All 6 labels are 1"),
        (np.eye(6), [0.5] * 6, "not whole numbers: 0.5"),
        (np.eye(6), ["a", "b"] * 3, "Number the classes"),
        (np.eye(6), np.ones((6, 2)), "not one-hot"),
        (np.zeros((6, 4)), [0, 1] * 3, "All `features` are"),
    ],
)
@pytest.mark.parametrize("score", [log_me, h_score])
def test_bad_features_and_labels_raise(score, features, labels, match):
    with pytest.raises(ValueError, match=match):
        score(features, labels)


def test_bad_numbers_and_source_classes_raise():
    with pytest.raises(ValueError, match=r"All labels are 2 in output 1"):
        log_me(np.eye(4), [[1, 2], [2, 2], [3, 2], [4, 2]], regression=True)
    with pytest.raises(ValueError, match="3 labels for 4 examples"):
        log_me(np.eye(4), [1.0, 2.0, 3.0], regression=True)
    with pytest.raises(ValueError, match="regression='yes'"):
        log_me(np.eye(4), [0, 1, 0, 1], regression="yes")
    with pytest.raises(ValueError, match="pass from_logits=True"):
        leep(np.array([[2.0, -1.0], [0.5, 3.0]]), [0, 1])
    with pytest.raises(ValueError, match="2 labels for 3 examples"):
        leep(np.eye(3), [0, 1])


def test_features_without_spread_or_of_any_scale():
    labels = np.arange(30) % 3
    for shrinkage in (True, False):
        with pytest.raises(ValueError, match="the same for each example"):
            h_score(np.ones((30, 4)) * 0.1, labels, shrinkage=shrinkage)
    features = np.random.default_rng(0).normal(size=(30, 4)) + labels[:, None]
    expected = h_score(features, labels)
    for scale in (1e-90, 1e90):
        found = h_score(scale * features, labels)
        assert found == pytest.approx(expected)
    with pytest.raises(ValueError, match="smaller than"):
        log_me(1e-170 * features, labels)
    with pytest.raises(ValueError, match="Pass at least 3"):
        h_score(features[:2], labels[:2])
