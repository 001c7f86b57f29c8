import numpy as np
import pytest
from scipy import stats

import keras_transfer as kt
from keras_transfer.analysis.shift import two_samples
from keras_transfer.analysis.shift.looks import level_of_look
from keras_transfer.analysis.shift.two_samples import ks_columns
from keras_transfer.analysis.shift.two_samples import permuted_mmd


def test_a_case_solved_by_hand():
    # The distribution functions differ most, by 1, between 3 and 4. Of the 20 ways to
    # choose 3 of 6 values, 2 separate them completely.
    found = ks_columns(np.array([[1.0], [2], [3]]), np.array([[4.0], [5], [6]]))
    assert found.statistics == [1.0]
    np.testing.assert_allclose(found.p_values, [0.1])


def test_the_columns_are_tested_as_by_scipy_and_corrected():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(90, 4)), rng.normal(size=(30, 4)) + [0, 0, 0.8, 0]
    found = ks_columns(left, right)
    for i in range(4):
        alone = stats.ks_2samp(left[:, i], right[:, i])
        assert found.statistics[i] == alone.statistic
        assert found.p_values[i] == alone.pvalue
    assert found.bonferroni == 4 * found.p_values[2]
    assert ks_columns(left, left).bonferroni == 1.0


def test_samples_that_agree_almost_give_no_warning():
    left = np.arange(200.0)[:, None]
    found = ks_columns(left, left + 0.5)  # SciPy's exact p-value is above 1
    assert found.statistics == [0.005]
    assert found.p_values == [1.0]


def test_the_discrepancy_is_that_of_mmd_test():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(60, 3)), rng.normal(size=(40, 3)) + 0.3
    found = permuted_mmd(left, right, 0.01, rng)
    known = kt.analysis.mmd_test(left, right, permutations=2000)
    np.testing.assert_allclose(found.mmd2, known.mmd2)
    assert abs(found.p_value - known.p_value) < 0.09


def test_the_permutations_stop_early_and_their_p_values_are_valid():
    rng = np.random.default_rng(0)
    found = [permuted_mmd(*rng.normal(size=(2, 20, 2)), 0.02, rng) for _ in range(300)]
    p_values = np.array([each.p_value for each in found])
    assert np.median([each.permutations for each in found]) < 100
    assert abs(p_values.mean() - 0.5) < 0.06
    for level in (0.02, 0.1, 0.5):
        likely = stats.binom.ppf(0.999, 300, level) / 300
        assert (p_values <= level).mean() <= likely
    assert (p_values <= 0.5).mean() > 0.4


def test_a_shift_uses_as_many_permutations_as_the_level_needs():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(50, 2)), rng.normal(size=(50, 2)) + 4
    assert permuted_mmd(left, right, 0.05, rng).permutations == 500
    found = permuted_mmd(left, right, 0.001, rng)
    assert found.permutations == 4000
    assert found.p_value == 1 / 4001
    assert two_samples.can_reach(1 / 20_001)
    assert not two_samples.can_reach(1 / 20_002)


def test_large_samples_are_tested_in_part():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1200, 1))
    part = two_samples.part_of(rows, 1000, rng)
    assert part.shape == (1000, 1)
    assert len(np.unique(part)) == 1000
    assert two_samples.part_of(rows, 1200, rng) is rows


def test_the_levels_of_all_looks_add_up_to_alpha():
    levels = [level_of_look(0.05, look) for look in range(1, 100_001)]
    assert 0.04999 < sum(levels) < 0.05
    assert levels[0] == pytest.approx(0.05 * 0.6079, rel=1e-4)
