"""Density ratios of two Gaussians, and warnings for domains without overlap."""

import pickle
import warnings

import numpy as np
import pytest

import keras_transfer as kt

importance_weights = kt.analysis.importance_weights
DomainOverlapWarning = kt.analysis.DomainOverlapWarning


def normal(count, seed=0, shift=0.0, size=1):
    return np.random.default_rng(seed).normal(shift, size=(count, size))


def test_ratios_of_two_gaussians_match_the_closed_form():
    source, target = normal(4000), normal(3000, 1, 1.0)
    found = importance_weights(source, target)
    x = source[:, 0]
    # log N(x; 1, 1) - log N(x; 0, 1)
    np.testing.assert_allclose(np.log(found.ratios), x - 0.5, atol=0.35)
    correlation = np.corrcoef(np.log(found.ratios), x)[0, 1]
    assert correlation > 0.99
    assert found.ratios.mean() == pytest.approx(1, abs=0.1)
    # n / E[w^2] = n / e.
    assert found.effective_sample_size == pytest.approx(4000 / np.e, rel=0.15)


@pytest.mark.parametrize("counts", [(3000, 300), (300, 3000)])
def test_ratios_do_not_depend_on_the_counts(counts):
    source, target = normal(counts[0]), normal(counts[1], 1, 1.0)
    found = importance_weights(source, target).ratios
    np.testing.assert_allclose(np.log(found), source[:, 0] - 0.5, atol=0.7)


def test_weighted_mean_of_the_source_matches_the_target_mean():
    source, target = normal(4000, size=2), normal(4000, 1, [1.0, -0.5], 2)
    weights = importance_weights(source, target).weights
    np.testing.assert_allclose(weights @ source / 4000, [1.0, -0.5], atol=0.15)


def test_weights_have_a_mean_of_1_and_the_size_matches_its_formula():
    found = importance_weights(normal(200), normal(100, 1, 0.5))
    w = found.weights
    assert w.shape == (200,) and w.mean() == pytest.approx(1)
    assert found.effective_sample_size == pytest.approx(w.sum() ** 2 / (w**2).sum())
    np.testing.assert_allclose(w, found.ratios / found.ratios.mean())


def test_without_a_shift_all_examples_count():
    found = importance_weights(normal(500), normal(500, 1))
    assert found.effective_sample_size > 0.95 * 500
    same = importance_weights(np.ones((50, 2)), np.ones((10, 2)))
    np.testing.assert_allclose(same.weights, 1)


def test_wide_features_without_a_shift_keep_their_size():
    # A classifier that overfits 200 features of 100 examples would find a shift.
    found = importance_weights(normal(100, size=200), normal(100, 1, size=200))
    assert found.effective_sample_size > 50


def test_clip_bounds_the_ratios():
    source, target = normal(500), normal(500, 1, 1.5)
    free = importance_weights(source, target)
    bound = importance_weights(source, target, clip=2.0)
    assert free.ratios.max() > 2 == bound.ratios.max()
    assert bound.weights.mean() == pytest.approx(1)
    assert bound.effective_sample_size > free.effective_sample_size


@pytest.mark.parametrize("shift", [8.0, 1e6, 1e90])
def test_no_overlap_warns_and_gives_finite_weights(shift):
    with pytest.warns(DomainOverlapWarning, match="hardly overlap"):
        found = importance_weights(normal(200), normal(200, 1, shift))
    assert np.isfinite(found.weights).all() and np.isfinite(found.ratios).all()
    assert found.weights.mean() == pytest.approx(1)
    assert 1 <= found.effective_sample_size <= 200


def test_a_collapsed_size_warns():
    # The domains overlap a little, so the classifier makes some errors.
    with pytest.warns(DomainOverlapWarning, match="of 2000 examples"):
        found = importance_weights(normal(2000), normal(2000, 1, 3.0))
    assert found.effective_sample_size < 200


def test_pixels_of_the_digits_warn():
    source, target = kt.data.digits.load_source(), kt.data.digits.load_target()
    with pytest.warns(DomainOverlapWarning, match="hardly overlap"):
        importance_weights(source.test[0], target.unlabeled)


def test_equal_weights_of_domains_without_overlap_warn():
    # All source examples are equally far away, so their weights are nearly equal.
    with pytest.warns(DomainOverlapWarning, match="hardly overlap"):
        found = importance_weights(normal(50) * 1e-9, normal(50, 1, 5.0))
    assert found.effective_sample_size > 40


def test_the_warning_is_a_user_warning_and_can_be_pickled():
    assert issubclass(DomainOverlapWarning, UserWarning)
    again = pickle.loads(pickle.dumps(DomainOverlapWarning("far")))
    assert str(again) == "far" and type(again) is DomainOverlapWarning


def test_good_overlap_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importance_weights(normal(100), normal(100, 1, 0.5))


def test_weights_are_repeatable():
    pair = normal(50), normal(60, 1, 0.5)
    first, again = importance_weights(*pair, seed=2), importance_weights(*pair, seed=2)
    np.testing.assert_array_equal(first.weights, again.weights)


@pytest.mark.parametrize("clip", [0, -1, np.nan, np.inf, "2", True])
def test_bad_clip_raises(clip):
    with pytest.raises(ValueError, match="clip"):
        importance_weights(normal(9), normal(9), clip=clip)


def test_bad_features_raise():
    with pytest.raises(ValueError, match="4 example"):
        importance_weights(normal(4), normal(9))
    with pytest.raises(ValueError, match="`target` are NaN"):
        importance_weights(normal(9), np.full((9, 1), np.nan))
    with pytest.raises(ValueError, match="same network"):
        importance_weights(normal(9), normal(9, size=2))
