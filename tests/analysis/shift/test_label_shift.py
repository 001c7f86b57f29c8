import numpy as np

from keras_transfer.analysis.shift.label_shift import shares_by_confusion
from keras_transfer.analysis.shift.label_shift import shares_by_scores


def test_a_confusion_matrix_solved_by_hand():
    # Of class 0, 80 % are predicted as 0; of class 1, 40 %. With shares of 1/4 and 3/4,
    # 0.25 * 0.8 + 0.75 * 0.4 = 0.5 are predicted as 0.
    joint = np.array([[80, 20], [20, 30]])
    found = shares_by_confusion(joint, np.array([0.5, 0.5]))
    np.testing.assert_allclose(found, [0.25, 0.75])


def test_shares_are_never_negative():
    joint = np.array([[80, 20], [20, 30]])
    # Not even a batch of class 1 alone has so few predictions of class 0.
    found = shares_by_confusion(joint, np.array([0.1, 0.9]))
    np.testing.assert_allclose(found, [0, 1], atol=1e-12)


def test_a_confusion_matrix_that_cannot_tell():
    same = np.array([[50, 50], [50, 50]])
    assert shares_by_confusion(same, np.array([0.5, 0.5])) is None
    lacking = np.array([[9, 0], [1, 0]])
    assert shares_by_confusion(lacking, np.array([0.5, 0.5])) is None


def test_expectation_maximization_of_certain_scores_counts_them():
    scores = np.repeat([[1.0, 0.0], [0.0, 1.0]], [30, 70], axis=0)
    found = shares_by_scores(scores, np.array([0.5, 0.5]))
    np.testing.assert_allclose(found, [0.3, 0.7], atol=1e-6)


def test_both_recover_known_shares_of_a_bayes_classifier():
    """Two Gaussians, whose posterior for equal shares is known exactly."""
    rng = np.random.default_rng(0)

    def drawn(shares, count):
        y = rng.choice(3, count, p=shares)
        x = rng.normal(size=count) + np.array([-1.5, 0, 1.5])[y]
        powers = np.exp(-np.square(x[:, None] - [-1.5, 0, 1.5]) / 2)
        return powers / powers.sum(1, keepdims=True), y

    uniform = np.full(3, 1 / 3)
    scores, y = drawn(uniform, 20_000)
    joint = np.zeros((3, 3))
    np.add.at(joint, (scores.argmax(1), y), 1)
    true = np.array([0.7, 0.1, 0.2])
    later, _ = drawn(true, 20_000)
    predicted = np.bincount(later.argmax(1), minlength=3) / len(later)
    assert np.abs(predicted - true).max() > 0.08
    assert np.abs(shares_by_confusion(joint, predicted) - true).max() < 0.02
    assert np.abs(shares_by_scores(later, uniform) - true).max() < 0.02


def test_expectation_maximization_increases_the_likelihood():
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(4), size=200)
    known = np.full(4, 0.25)
    found = shares_by_scores(scores, known)

    def likelihood(shares):
        return np.log(scores @ (shares / known)).sum()

    # The likelihood is concave in the shares, so no mixture with others is better.
    for other in rng.dirichlet(np.ones(4), size=50):
        assert likelihood(0.99 * found + 0.01 * other) < likelihood(found) + 1e-3
