"""task_mixture: shares of the tasks, labels and weights by task, and refusals."""

import keras
import numpy as np
import pytest

from keras_transfer.data import task_mixture

LARGE = np.arange(36.0).reshape(18, 2), np.arange(18) % 3
SMALL = -np.arange(1.0, 5.0).reshape(2, 2), np.array([0.5, -0.5])
TASKS = {"large": LARGE, "small": SMALL}


def rows(data):
    """Return the rows of one pass as arrays: x, y and the weights by task."""
    batches = [keras.tree.map_structure(lambda a: a.numpy(), each) for each in data]
    return keras.tree.map_structure(lambda *a: np.concatenate(a), *batches)


def test_the_shares_follow_the_temperature():
    # 18 and 2 examples: shares of 9/10 and 1/10, at a temperature of 2 of 3/4 and 1/4.
    for temperature, shares in ((1.0, [18, 2]), (2.0, [15, 5]), (1e9, [10, 10])):
        data = task_mixture(TASKS, temperature=temperature, batch_size=4)
        assert len(data) == 5
        _, _, weight = rows(data)
        assert [weight[name].sum() for name in TASKS] == shares
    limited = task_mixture(TASKS, limit=2, batch_size=4)
    assert rows(limited)[2]["large"].sum() == 10


def test_each_row_is_an_example_of_its_task():
    x, y, weight = rows(task_mixture(TASKS, temperature=2.0, batch_size=4))
    np.testing.assert_array_equal(weight["large"] + weight["small"], 1)
    for name, (inputs, labels) in TASKS.items():
        for row in np.flatnonzero(weight[name]):
            (place,) = np.flatnonzero((inputs == x[row]).all(axis=1))
            assert y[name][row] == labels[place]
            assert set(y[name]) <= set(labels)  # also in the rows of the other task


def test_all_shapes_are_known_and_dtypes_are_kept():
    x, y, weight = task_mixture(TASKS, batch_size=4).element_spec
    assert x.shape == (4, 2)
    assert y["large"].dtype == "int64" and y["small"].dtype == "float64"
    assert weight["small"].shape == (4,) and weight["small"].dtype == "float32"


def test_tokens_and_sample_weights():
    def tokens(count, start):
        ids = start + np.arange(count * 3).reshape(count, 3)
        return {"ids": ids, "mask": np.ones_like(ids)}

    tasks = {
        "a": (tokens(4, 0), np.eye(2)[[0, 1, 0, 1]], np.array([1, 2, 3, 4])),
        "b": (tokens(4, 50), np.arange(4)),
    }
    x, y, weight = rows(task_mixture(tasks, batch_size=2))
    assert y["a"].shape == (8, 2)
    own = weight["b"] == 0
    np.testing.assert_array_equal(weight["a"][own], 1 + x["ids"][own, 0] // 3)
    assert sorted(x["ids"][~own, 0]) == [50, 53, 56, 59]


def test_a_seed_gives_the_same_batches():
    def passes(seed):
        data = task_mixture(TASKS, batch_size=4, seed=seed)
        return [rows(data)[0] for _ in range(2)]

    first, second = passes(1)
    np.testing.assert_array_equal(passes(1), (first, second))
    assert (first != second).any() and (first != passes(2)[0]).any()
    np.testing.assert_array_equal(np.sort(first, axis=0), np.sort(second, axis=0))


def test_strings():
    tasks = {"a": (["x", "yy"], [0, 1]), "b": (np.array(["zzz"], object), [1])}
    x, _, _ = rows(task_mixture(tasks, batch_size=3))
    assert sorted(x) == [b"x", b"yy", b"zzz"]


@pytest.mark.parametrize(
    "tasks, settings, error, match",
    [
        ([("a", LARGE), ("a", SMALL)], {}, TypeError, "tasks is a list"),
        ({}, {}, ValueError, "tasks is empty"),
        ({1: LARGE}, {}, TypeError, "name of a task is 1"),
        ({"a": LARGE[0]}, {}, TypeError, "is a ndarray"),
        ({"a": (LARGE[0],)}, {}, TypeError, "is a tuple of 1"),
        ({"a": (LARGE[0], None)}, {}, ValueError, "has no labels"),
        ({"a": (None, LARGE[1])}, {}, ValueError, "has no inputs"),
        ({"a": (LARGE[0][:0], LARGE[1][:0])}, {}, ValueError, "is empty"),
        ({"a": (LARGE[0], LARGE[1][:3])}, {}, ValueError, r"\[3, 18\] examples"),
        ({"a": (LARGE[0], ["x"] * 18)}, {}, ValueError, "labels of .* are a <U1"),
        ({"a": (SMALL[0], [0.5, np.nan])}, {}, ValueError, "1 of 2 labels"),
        ({"a": (*SMALL, [1.0, -1.0])}, {}, ValueError, "sample weights"),
        ({"a": (*SMALL, [0.0, 0.0])}, {}, ValueError, "would not train"),
        (
            {"a": LARGE, "b": (np.ones((2, 3)), [0, 1])},
            {},
            ValueError,
            "'a' is float64 .2,., but one of 'b' is float64 .3,.",
        ),
        (
            {"a": LARGE, "b": (np.ones((2, 2), int), [0, 1])},
            {},
            ValueError,
            "'b' is int64",
        ),
        (TASKS, {"temperature": 0}, ValueError, "temperature"),
        (TASKS, {"limit": 0}, ValueError, "limit"),
        (TASKS, {"batch_size": 0}, ValueError, "batch_size"),
        (TASKS, {"steps": 0}, ValueError, "steps"),
        (TASKS, {"seed": -1}, ValueError, "seed"),
        (TASKS, {"steps": 1, "batch_size": 4}, ValueError, r"none of .* \['small'\]"),
    ],
)
def test_refuses(tasks, settings, error, match):
    with pytest.raises(error, match=match):
        task_mixture(tasks, **settings)
