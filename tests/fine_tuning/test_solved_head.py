"""A new head starts at the solution of scikit-learn, or where its training ended."""

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge

from keras_transfer.analysis.linear_solutions import ABSENT
from keras_transfer.analysis.linear_solutions import solve_classes
from keras_transfer.fine_tuning.converged_head import converge
from keras_transfer.fine_tuning.solved_head import solve_head
from tests.contracts.compare import assert_close

RNG = np.random.default_rng(0)
# Features of several scales, of which some never change.
X = RNG.normal(3, [1, 10, 0.1, 5, 1], size=(60, 5)).astype("float32")
X[:, 4] = 7
SCORES = (X - X.mean(0)) @ RNG.normal(size=(5, 3)) / 5 + RNG.normal(size=(60, 3))
Y = SCORES.argmax(axis=1)
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def head(units=3, activation=None, *above, **settings):
    keras.utils.set_random_seed(0)
    dense = layers.Dense(units, activation=activation, **settings)
    return keras.Sequential([keras.Input((5,)), layers.Dropout(0.5), dense, *above])


def outputs(model):
    return model.predict(X, verbose=0)


def standard(x):
    """Return standardized features; those that hardly vary are not amplified."""
    floor = 0.3 * np.sqrt((x.std(0) ** 2).mean())
    return (x - x.mean(0)) / np.maximum(x.std(0), floor)


def oracle(y, weights=None, penalty=0.1):
    solver = LogisticRegression(C=penalty, max_iter=5000, tol=1e-8)
    return solver.fit(standard(X), y, weights).predict_proba(standard(X))


def penalty_of(text):
    return float(text.split("C=")[1].split(",")[0])


@pytest.mark.parametrize(
    "loss, activation, labels",
    [
        (LOGITS, None, Y),
        ("sparse_categorical_crossentropy", "softmax", Y[:, None]),
        ("categorical_crossentropy", "softmax", np.eye(3)[Y]),
        ("crossentropy", "softmax", Y),
    ],
)
def test_classes_equal_a_logistic_regression_on_standardized_features(
    loss, activation, labels
):
    above = [layers.Softmax()] if activation is None else []
    model = head(3, activation)
    text = solve_head(model, (X, labels), loss)
    found = keras.Sequential([model, *above]).predict(X, verbose=0)
    assert "5-fold cross-validation" in text
    np.testing.assert_allclose(found, oracle(Y, penalty=penalty_of(text)), atol=2e-3)


def test_two_classes_share_one_difference_of_logits():
    y = (Y > 0).astype(int)
    two, one = head(2), head(1, "sigmoid")
    text = solve_head(two, (X, y), LOGITS)
    solve_head(one, (X, y), "binary_crossentropy")
    logits, expected = outputs(two), oracle(y, penalty=penalty_of(text))[:, 1]
    found = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    np.testing.assert_allclose(found, expected, atol=2e-3)
    np.testing.assert_allclose(outputs(one)[:, 0], expected, atol=2e-3)


def test_several_labels_are_solved_one_by_one():
    y = (SCORES > 0).astype(int)
    model = head(3, "sigmoid")
    text = solve_head(model, (X, y), "binary_crossentropy")
    assert penalty_of(text) > 0
    assert (outputs(model)[:, 0] > 0.5).mean() == pytest.approx(y[:, 0].mean(), abs=0.1)


def test_numbers_equal_a_ridge_regression():
    y = SCORES[:, :2].astype("float32")
    model = head(2)
    text = solve_head(model, (X, y), "mse")
    ridge = Ridge(float(text.split("alpha=")[1])).fit(standard(X), y)
    expected = ridge.predict(standard(X))
    np.testing.assert_allclose(outputs(model), expected, atol=1e-3)


def test_weights_of_examples_and_classes_count():
    weights = RNG.uniform(0.1, 3, size=60)
    model = head(3)
    text = solve_head(model, (X, Y, weights), LOGITS, {0: 2.0, 1: 1.0, 2: 0.5})
    weights = weights * np.array([2.0, 1.0, 0.5])[Y]
    expected = oracle(Y, weights, penalty_of(text))
    found = keras.ops.softmax(outputs(model))
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_more_features_than_examples_give_the_same_solution():
    wide = RNG.normal(size=(12, 40))
    y = np.arange(12) % 2
    found = solve_classes(wide, y, None, 2)
    penalty = penalty_of(found.text)
    solver = LogisticRegression(C=penalty, max_iter=5000, tol=1e-8).fit(
        standard(wide), y
    )
    difference = (wide @ found.kernel + found.bias) @ [-1, 1]
    np.testing.assert_allclose(
        difference, solver.decision_function(standard(wide)), atol=5e-3
    )


def test_features_that_hardly_vary_get_no_large_weights():
    noise = np.c_[X, 1e-9 * RNG.normal(size=60)].astype("float32")
    found = solve_classes(noise.astype("float64"), Y, None, 3)
    assert np.abs(found.kernel[-1]).max() < 1e-3 < np.abs(found.kernel).max() < 100


def test_a_fold_that_is_surely_wrong_does_not_warn():
    # The first example is far on the wrong side, with a probability that is 0.
    x = np.r_[np.full(30, -1.0), np.full(30, 1.0)][:, None] * np.ones((1, 3000))
    x[0] = 200
    y = np.r_[np.zeros(30), np.ones(30)].astype(int)
    assert solve_classes(x, y, None, 2).text.startswith("logistic regression")


def test_a_class_without_examples_is_below_all_others():
    found = solve_classes(X.astype("float64"), Y, None, 4)
    assert not found.kernel[:, 3].any()
    assert found.bias[3] == pytest.approx(found.bias[:3].min() - ABSENT)


def test_a_class_with_one_example_gets_the_usual_penalty():
    y = np.r_[2, np.arange(59) % 2]
    assert "a class has a single example" in solve_head(head(3), (X, y), LOGITS)


@pytest.mark.parametrize(
    "model, loss, labels",
    [
        (head(1), "mae", SCORES[:, 0]),
        (head(3), "sparse_categorical_crossentropy", Y),  # logits for probabilities
        (head(3, "relu"), LOGITS, Y),
        (head(3, use_bias=False), LOGITS, Y),
        (head(3, kernel_constraint="non_neg"), LOGITS, Y),
        (head(4, None, layers.Dense(3)), LOGITS, Y),
        (head(3, "softmax"), "categorical_crossentropy", np.full((60, 3), 1 / 3)),
        (head(3), LOGITS, np.zeros(60, int)),
        (head(3), lambda y, x: keras.ops.sum(x), Y),
    ],
)
def test_heads_without_a_solution_do_not_change(model, loss, labels):
    before = model.get_weights()
    assert solve_head(model, (X, labels), loss) is None
    assert_close(model.get_weights(), before)


@pytest.mark.parametrize("scale", [1e6, 1e-3])
@pytest.mark.parametrize("kernel", ["glorot_uniform", "zeros"])
def test_the_form_of_a_head_is_read_at_each_scale(scale, kernel):
    x, y = X * scale, Y % 2
    probabilities = head(2, "softmax", kernel_initializer=kernel)
    assert solve_head(probabilities, (x, y), "sparse_categorical_crossentropy")
    for each in (head(1, "tanh", kernel_initializer=kernel), head(1, "relu")):
        before = each.get_weights()
        assert solve_head(each, (x, SCORES[:, :1]), "mse") is None
        assert_close(each.get_weights(), before)
    doubled = head(3, None, layers.Rescaling(2.0), kernel_initializer=kernel)
    assert solve_head(doubled, (x, Y), LOGITS) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_without_a_solution_change_no_weights(bad):
    wrong = X.copy()
    wrong[3, 1] = bad
    for x in (wrong, np.full_like(X, 0.1), X * 1e-7, X[:1]):
        model = head(3)
        before = model.get_weights()
        y = SCORES[: len(x)]
        assert solve_head(model, (x, y), "mse") is None
        assert solve_head(model, (x, Y[: len(x)]), LOGITS) is None
        assert_close(model.get_weights(), before)


def test_examples_of_weight_0_do_not_count():
    few = np.arange(60) < 12
    some, all_weighted = head(3), head(3)
    solve_head(some, (X[few], Y[few], np.ones(12)), LOGITS)
    assert solve_head(all_weighted, (X, Y, few * 1.0), LOGITS)
    assert_close(all_weighted.get_weights(), some.get_weights())
    for weights in (np.zeros(60), np.arange(60) == 3, -np.ones(60)):
        assert solve_head(head(3), (X, Y, weights * 1.0), LOGITS) is None
        assert solve_head(head(3), (X, SCORES, weights * 1.0), "mse") is None


def test_a_loss_that_is_always_nan_is_no_error_of_the_search_for_epochs():
    text = converge(
        head(3),
        (np.full_like(X, np.nan), Y),
        loss=LOGITS,
        class_weight=None,
        batch_size=16,
        learning_rate=0.01,
        seed=0,
    )
    assert text == "1 epochs of Adam(0.01)"


@pytest.mark.slow
def test_a_solution_does_not_depend_on_seeds():
    first, second = head(3), head(3)
    solve_head(first, (X, Y), LOGITS)
    keras.utils.set_random_seed(9)
    solve_head(second, (X, Y), LOGITS)
    assert_close(first.get_weights(), second.get_weights())


@pytest.mark.slow
def test_other_heads_train_until_their_held_out_loss_stops_falling():
    model = head(8, "relu", layers.Dense(3))
    features = (X - X.mean(0)) / 10
    text = converge(
        model,
        (features, Y),
        loss=LOGITS,
        class_weight={0: 1.0, 1: 1.0, 2: 1.0},
        batch_size=16,
        learning_rate=0.01,
        seed=1,
    )
    logits = model.predict(features, verbose=0)
    assert float(keras.ops.mean(LOGITS(Y, logits))) < 0.8  # log(3) is 1.1
    assert 1 <= int(text.split()[0]) <= 200 and "Adam(0.01)" in text


@pytest.mark.slow
def test_few_examples_are_not_held_out():
    model = head(8, "relu", layers.Dense(3))
    text = converge(
        model,
        (X[:6], Y[:6]),
        loss=LOGITS,
        class_weight=None,
        batch_size=8,
        learning_rate=0.01,
        seed=0,
    )
    assert text == "50 epochs of Adam(0.01)"
