"""conformal: cases by hand, the paper's formula, coverage over many draws, errors."""

import keras
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import beta
from scipy.stats import kstest

import keras_transfer as kt
from keras_transfer.analysis.calibration.conformal_scores import adaptive_scores
from keras_transfer.analysis.calibration.conformal_scores import lac_scores
from keras_transfer.analysis.calibration.conformal_scores import place_of_quantile
from tests.models import calibration_models


def given(classes=2):
    """Return a model whose outputs are its inputs: probabilities."""
    return keras.Sequential(
        [keras.Input((classes,)), keras.layers.Activation("linear")], name="given"
    )


def test_lac_by_hand():
    # Nine scores of the right class, 1 - p. k = ceil(10 * 0.8) = 8, the eighth is 0.6.
    right = np.array([0.99, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.4, 0.2])
    y = np.arange(9) % 2
    p = np.where(np.arange(2) == y[:, None], right[:, None], 1 - right[:, None])
    sets = kt.analysis.conformal(given(), (p, y), coverage=0.8)
    assert sets.threshold == pytest.approx(0.6)
    x = np.array([[0.41, 0.59], [0.39, 0.61], [0.95, 0.05], [0.5, 0.5]])
    expected = [[1, 1], [0, 1], [1, 0], [1, 1]]
    assert sets.predict_sets(x).astype(int).tolist() == expected
    assert sets.named_sets(x) == [["1", "0"], ["1"], ["0"], ["0", "1"]]
    # The sets of the first 8 have the right class: 1 - p <= 0.6.
    found = sets.measure((p, y))
    assert found.coverage == pytest.approx(8 / 9) and found.examples == 9
    assert found.low < 8 / 9 < found.high and found.empty == 0


def oracle(p, u, penalty, free):
    """Equation 5 of the paper of RAPS, with loops."""
    scores = np.zeros(p.shape)
    for i, row in enumerate(p):
        for y in range(len(row)):
            larger = sum(each for each in row if each > row[y])
            rank = 1 + sum(each > row[y] for each in row)
            scores[i, y] = larger + row[y] * u[i] + penalty * max(0, rank - free)
    return scores


def test_adaptive_scores_equal_the_formula():
    random = np.random.default_rng(0)
    p, u = random.dirichlet(np.ones(6), 40), random.uniform(size=40)
    for penalty, free in ((0.0, 0), (0.1, 2), (0.02, 0)):
        found = adaptive_scores(p, u, penalty, free)
        np.testing.assert_allclose(found, oracle(p, u, penalty, free), atol=1e-12)


def test_adaptive_scores_by_hand():
    p, u = np.array([[0.2, 0.5, 0.3]]), np.array([0.5])
    # Ranks 3, 1, 2: 0.8 + 0.1, 0.25, 0.5 + 0.15; the penalty is for ranks above 1.
    np.testing.assert_allclose(adaptive_scores(p, u, 0.0, 0), [[0.9, 0.25, 0.65]])
    np.testing.assert_allclose(adaptive_scores(p, u, 0.1, 1), [[1.1, 0.25, 0.75]])


@pytest.mark.parametrize("method", ["lac", "aps", "raps"])
def test_coverage_over_many_draws_has_the_beta_distribution(method):
    count, wanted, draws = 60, 0.85, 400
    place = place_of_quantile(count, wanted)
    found = []
    for seed in range(draws):
        random = np.random.default_rng(seed)
        z = random.normal(size=(count + 2000, 5)) * 2
        p = softmax(z, axis=1)
        # The labels are not from p, so the model is wrong about its certainty.
        y = (softmax(z / 2, 1).cumsum(1) < random.uniform(size=(len(z), 1))).sum(1)
        u = random.uniform(size=len(z))
        penalty = 0.05 if method == "raps" else 0.0
        scores = lac_scores(p) if method == "lac" else adaptive_scores(p, u, penalty, 2)
        own = scores[np.arange(len(z)), y]
        threshold = np.sort(own[:count])[place - 1]
        found.append((own[count:] <= threshold).mean())
    law = beta(place, count + 1 - place)
    assert np.mean(found) == pytest.approx(law.mean(), abs=4 * law.std() / draws**0.5)
    assert np.mean(found) >= wanted - 4 * law.std() / draws**0.5
    assert kstest(found, law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("method", ["lac", "aps", "raps"])
def test_a_model_covers_new_examples_but_not_under_shift(method):
    x, y = calibration_models.drawn(count=3000)
    model = calibration_models.certain()
    raps = (0.1, 1) if method == "raps" else None
    sets = kt.analysis.conformal(
        model, (x[:1000], y[:1000]), coverage=0.9, method=method, raps=raps
    )
    low, high = sets.expected_coverage()
    assert 0.87 < low < 0.9 < high < 0.93
    found = sets.measure((x[1000:], y[1000:]))
    assert low - 0.02 < found.coverage < high + 0.02
    shifted = sets.measure((-x[1000:], y[1000:]))
    assert shifted.high < 0.8
    again = sets.predict_sets(x[1000:])
    np.testing.assert_array_equal(again, sets.predict_sets(x[1000:]))
    assert again[np.arange(2000), y[1000:]].mean() == found.coverage
    assert again.sum(1).mean() == found.mean_size
    assert method in repr(sets)


def test_the_seed_changes_the_random_scores_only():
    x, y = calibration_models.drawn()
    model = calibration_models.certain()
    for method, same in (("lac", True), ("aps", False)):
        first, other = (
            kt.analysis.conformal(model, (x, y), method=method, seed=seed)
            for seed in (0, 1)
        )
        assert (first.threshold == other.threshold) is same


def test_a_dataset_and_one_output_unit():
    tf = pytest.importorskip("tensorflow")
    model, (x, y) = calibration_models.one_unit("sigmoid")
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(50)
    sets = kt.analysis.conformal(model, dataset, coverage=0.95)
    plain = kt.analysis.conformal(model, (x, y), coverage=0.95)
    assert sets.threshold == pytest.approx(plain.threshold, abs=1e-6)
    found = sets.predict_sets(dataset.map(lambda x, y: x))
    assert found.shape == (600, 2) and found.any(1).mean() > 0.9


def test_bad_input():
    x, y = calibration_models.drawn()
    model = calibration_models.certain()
    sets = kt.analysis.conformal
    with pytest.raises(ValueError, match="coverage=1 must be"):
        sets(model, (x, y), coverage=1)
    with pytest.raises(ValueError, match="at least 99 examples, but `data` has 98"):
        sets(model, (x[:98], y[:98]), coverage=0.99)
    assert sets(model, (x[:99], y[:99]), coverage=0.99).examples == 99
    with pytest.raises(ValueError, match="method='split' must be one of"):
        sets(model, (x, y), method="split")
    with pytest.raises(ValueError, match="has no effect with method='aps'"):
        sets(model, (x, y), method="aps", raps=(0.1, 1))
    with pytest.raises(ValueError, match="must be a pair"):
        sets(model, (x, y), method="raps", raps=0.1)
    with pytest.raises(ValueError, match="leaves 4 ranks"):
        sets(model, (x, y), method="raps", raps=(0.1, 4))
    with pytest.raises(ValueError, match="penalty of raps is -1, but must be"):
        sets(model, (x, y), method="raps", raps=(-1, 1))
    with pytest.raises(ValueError, match="of one class"):
        sets(model, (x, np.zeros_like(y)))
    with pytest.raises(ValueError, match="seed=-1 must be"):
        sets(model, (x, y), seed=-1)
    found = sets(model, (x, y))
    with pytest.raises(ValueError, match="seems to have labels"):
        found.predict_sets((x, y))
    with pytest.raises(ValueError, match="NaN or infinite for 3 of 3"):
        found.predict_sets(x[:3] * np.nan)
