"""Differences of paired scores, and the answer on negative transfer."""

import numpy as np
import pytest
from scipy import stats

from keras_transfer.fine_tuning.comparison.differences import difference
from keras_transfer.fine_tuning.comparison.negative_transfer import negative_transfer
from keras_transfer.fine_tuning.pilot.scores import Score


def scores(values, size=10):
    """Return a score for each seed, from an array `(seeds, groups)`."""
    return [Score(v, -np.array(v), [size] * len(v), "accuracy", True) for v in values]


def test_without_noise_of_examples_it_is_the_paired_t_test():
    """All groups of a seed have one value, so only the seeds vary."""
    one, two = np.array([0.8, 0.9, 0.7]), np.array([0.6, 0.8, 0.65])
    found = difference(
        scores(np.repeat(one[:, None], 500, 1)), scores(np.repeat(two[:, None], 500, 1))
    )
    expected = stats.ttest_rel(one, two).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx((one - two).mean())


def test_without_noise_of_seeds_it_is_the_interval_over_groups():
    one, two = np.random.default_rng(0).uniform(size=(2, 40))
    found = difference(scores([one] * 3), scores([two] * 3))
    expected = stats.ttest_rel(one, two).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    rng, hits, tries = np.random.default_rng(0), 0, 400
    for _ in range(tries):
        examples = rng.normal(0.1, 0.1, size=25)  # the true difference is 0.1
        seeds = rng.normal(0, 0.03, size=(3, 1))
        runs = examples + seeds + rng.normal(0, 0.02, size=(3, 25))
        found = difference(scores(runs), scores(np.zeros((3, 25))))
        hits += found.low < 0.1 < found.high
    assert 0.92 < hits / tries <= 1


def test_one_seed_has_no_interval_and_equal_scores_have_none():
    assert difference(scores([[0.5, 0.6]]), scores([[0.4, 0.4]])) == (
        pytest.approx(0.15),
        None,
        None,
    )
    same = scores([[0.5, 0.6]] * 2)
    assert difference(same, same) == (0, 0, 0)


def constant(value):
    return scores(np.full((3, 30), value) + 0.01 * np.arange(3)[:, None])


@pytest.mark.parametrize(
    ("rows", "answer"),
    [
        ({"scratch": 0.5, "probe": 0.4, "full": 0.7}, "no"),
        ({"scratch": 0.5, "probe": 0.4, "full": 0.45}, "yes"),
        ({"scratch": 0.5, "zero-shot": 0.8, "full": 0.7}, "yes"),
        ({"zero-shot": 0.6, "full": 0.7}, "no"),
    ],
)
def test_the_best_pretrained_row_decides(rows, answer):
    found = negative_transfer({name: constant(value) for name, value in rows.items()})
    assert found.answer == answer and "full" in found.why


def test_noise_is_undecided_and_a_row_alone_has_no_answer():
    noisy = scores(np.random.default_rng(1).uniform(size=(3, 30)))
    other = scores(np.random.default_rng(2).uniform(size=(3, 30)))
    found = negative_transfer({"scratch": noisy, "full": other})
    assert found.answer == "undecided" and "not clearly different" in found.why
    assert negative_transfer({"full": noisy}) is None
    assert negative_transfer({"scratch": noisy}) is None


def test_one_test_example_has_no_interval():
    runs = {"probe": scores([[1.0], [1.0]], 1), "scratch": scores([[0.0], [0.0]], 1)}
    assert difference(runs["probe"], runs["scratch"]) == (1.0, None, None)
    found = negative_transfer(runs)
    assert found.answer == "undecided" and "One test example" in found.why
