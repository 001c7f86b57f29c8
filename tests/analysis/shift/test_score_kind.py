import dataclasses

import numpy as np
import pytest

from keras_transfer.analysis.shift.score_kind import ScoreKind

CLASSES = ScoreKind("classes", False, 3)


def test_logits_become_probabilities():
    found = ScoreKind("classes", True, 2).scores([[0.0, np.log(3)], [800.0, 0.0]])
    np.testing.assert_allclose(found, [[0.25, 0.75], [1, 0]], atol=1e-12)
    found = ScoreKind("labels", True, 2).scores([[0.0, -np.log(3)]])
    np.testing.assert_allclose(found, [[0.5, 0.25]])
    found = ScoreKind("binary", True, 1).scores([0.0, np.log(4)])
    np.testing.assert_allclose(found, [[0.5], [0.8]])


def test_of_two_classes_one_column_is_tested():
    two = ScoreKind("classes", False, 2)
    scores = two.scores([[0.25, 0.75]])
    np.testing.assert_allclose(two.compared(scores), [[np.log(3)]])
    assert two.shown(scores).tolist() == [[0.75]]
    assert two.tested_classes() == [1]
    one = ScoreKind("binary", False, 1)
    assert one.compared(one.scores([0.75])).tolist() == [[0.75]]
    assert one.shares(one.scores([0.75])).tolist() == [[0.25, 0.75]]
    assert one.predicted(one.scores([0.75, 0.1])).tolist() == [1, 0]


def test_scores_near_one_keep_their_order():
    """In float32, 1 - 1e-9 and 1 - 1e-12 are both 1, but the others tell."""
    scores = np.array([[1, 1e-9, 0], [1, 1e-12, 0]], "float32")
    first = CLASSES.compared(scores)[:, 0]
    assert first[1] > first[0] + 5
    # Rounding of the score itself does not count.
    rounded = scores.copy()
    rounded[0, 0] = np.nextafter(np.float32(1), np.float32(0))
    np.testing.assert_allclose(CLASSES.compared(rounded)[:, 0], first, atol=1e-6)


def test_the_order_of_the_scores_stays():
    scores = np.random.default_rng(0).dirichlet(np.ones(3), size=50)
    order = np.argsort(scores, axis=0)
    assert (np.argsort(CLASSES.compared(scores), axis=0) == order).all()


@pytest.mark.parametrize(
    "outputs, words",
    [
        ([[0.5, 0.5, 0.5]], "Row 0 of the outputs has the sum 1.5"),
        ([[0.2, 0.3, 0.5], [2.0, -1.0, 0.0]], "Row 1 .* outside of 0 to 1"),
        ([[0.2, 0.3, 0.5], [np.nan, 0.5, 0.5]], "Row 1 of `outputs` has NaN"),
        ([[0.5, 0.5]], r"the shape \(1, 2\)"),
        ([0.2, 0.3, 0.5], r"the shape \(3,\)"),
        (np.zeros((0, 3)), "no rows"),
        ([["a", "b", "c"]], "dtype"),
        (np.array([[None, 1, 2]], dtype=object), "dtype object"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(outputs, words):
    with pytest.raises(ValueError, match=words):
        CLASSES.scores(outputs)


def test_independent_labels_need_no_sum():
    kind = ScoreKind("labels", False, 2)
    assert kind.scores([[0.9, 0.8]]).tolist() == [[0.9, 0.8]]
    assert kind.predicted(np.ones((1, 2))) is None
    with pytest.raises(ValueError, match="outside of 0 to 1"):
        kind.scores([[1.5, 0.5]])


def test_the_config_is_checked():
    config = dataclasses.asdict(CLASSES)
    assert ScoreKind.from_config(config) == CLASSES
    for wrong in ({"kind": "eval"}, {"logits": 1}, {"size": 1}, {"size": "3"}):
        with pytest.raises(ValueError, match="not a kind of scores"):
            ScoreKind.from_config(config | wrong)
