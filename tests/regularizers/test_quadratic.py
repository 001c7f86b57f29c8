"""Quadratic: sums of penalties, against the formula."""

import numpy as np

from keras_transfer.regularizers.quadratic import Quadratic


def random(seed):
    return np.random.default_rng(seed).normal(size=(3, 2))


def by_hand(weight, tasks):
    return sum(np.sum(0.5 * f * (weight - c) ** 2) for f, c in tasks)


def test_a_sum_of_penalties_equals_both_also_without_importance():
    tasks = [(random(k) ** 2, random(k + 9)) for k in range(3)]
    for importance, _ in tasks:
        importance[0, 0] = 0.0  # no task needs this weight
    penalty = Quadratic(4.0, (3, 2), center=True, importance=True)
    for task in tasks:
        penalty.add(*task)
    for seed in (20, 21):
        weight = random(seed)
        np.testing.assert_allclose(penalty(weight), 4 * by_hand(weight, tasks), 1e-5)


def test_online_form_decays_the_importance_and_moves_the_center():
    penalty = Quadratic(2.0, (3, 2), center=True, importance=True)
    (first, _), (second, center) = [(random(k) ** 2, random(k + 9)) for k in (0, 1)]
    penalty.replace(0.5, first, random(5))
    penalty.replace(0.5, second, center)
    weight = random(7)
    expected = 2 * by_hand(weight, [(0.5 * first + second, center)])
    np.testing.assert_allclose(penalty(weight), expected, 1e-5)


def test_without_center_or_importance_it_is_weight_decay():
    decay = Quadratic(0.1, (3, 2), center=False, importance=False)
    assert decay.variables == {}
    np.testing.assert_allclose(decay(random(0)), 0.05 * np.sum(random(0) ** 2), 1e-6)
    near = Quadratic(0.1, (3, 2), center=True, importance=False)
    near.assign(center=random(0))
    assert float(near(random(0).astype("float32"))) == 0.0
