"""episodes and hold_out_classes: what an episode contains, and that none repeats."""

import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.data import episodes
from keras_transfer.data import hold_out_classes

NAMES = np.array(["ash", "elm", "fir", "oak"])


def numbered():
    """Return examples that are their own row numbers, of classes of 8 to 11."""
    y = np.repeat(NAMES, [8, 9, 10, 11])
    order = np.random.default_rng(0).permutation(len(y))
    return np.arange(len(y), dtype="int32"), y[order]


def listed(data):
    return [(x["support"], x["query"], y) for x, y in data.as_numpy_iterator()]


def test_an_episode_has_other_examples_of_the_same_classes_as_queries():
    x, y = numbered()
    data = episodes(x, y, 3, 2, 4, num_episodes=6, batch_size=2)
    assert len(data) == 3
    seen = set()
    for support, query, numbers in listed(data):
        assert support.shape == (2, 3, 2) and query.shape == numbers.shape == (2, 12)
        for of_support, of_query, number in zip(support, query, numbers, strict=True):
            rows = [*of_support.ravel(), *of_query]
            assert len(set(rows)) == 18  # no example twice
            classes = y[of_support]
            assert (classes == classes[:, :1]).all()
            assert len(set(classes[:, 0])) == 3
            assert (y[of_query] == classes[number, 0]).all()
            assert number.tolist() == [0] * 4 + [1] * 4 + [2] * 4
            seen.add(tuple(classes[:, 0]))
    assert len(seen) > 1


def test_shapes_are_static_and_structures_are_kept():
    x, y = numbered()
    texts = np.array([str(row) for row in x])
    data = episodes({"ids": x[:, None], "text": texts}, y, 2, 1, 3, num_episodes=2)
    (support, query), numbers = (
        (data.element_spec[0][key] for key in ("support", "query")),
        data.element_spec[1],
    )
    assert support["ids"] == tf.TensorSpec((1, 2, 1, 1), tf.int32)
    assert query["text"] == tf.TensorSpec((1, 6), tf.string)
    assert numbers == tf.TensorSpec((1, 6), tf.int32)
    for episode, _ in data.as_numpy_iterator():
        ids, found = episode["query"]["ids"][..., 0], episode["query"]["text"]
        assert found.astype(int).tolist() == ids.tolist()


def test_passes_differ_only_with_shuffle_and_the_seed_fixes_them():
    def of(**kwargs):
        data = episodes(*numbered(), 2, 1, 5, num_episodes=4, **kwargs)
        return [
            np.concatenate([query for _, query, _ in listed(data)]).tolist()
            for _ in range(2)
        ]

    first, second = of()
    assert first != second and of() == [first, second]
    assert of(seed=1)[0] != first
    same, again = of(shuffle=False)
    assert same == again


def test_each_class_and_each_example_is_drawn_equally_often():
    x, y = numbered()
    data = episodes(x, y, 2, 1, 1, num_episodes=4000, batch_size=400)
    rows = np.concatenate([support.ravel() for support, _, _ in listed(data)])
    # 2,000 draws of each class; 190 to 250 of each of its examples.
    counts = np.array([np.count_nonzero(y[rows] == name) for name in NAMES])
    assert (abs(counts - 2000) < 150).all()
    expected = 2000 / np.array([np.count_nonzero(y == name) for name in y])
    assert (abs(np.bincount(rows, minlength=len(x)) - expected) < 75).all()


def test_classes_are_held_out():
    x, y = numbered()
    rest, held_out = hold_out_classes({"ids": x}, y, ["oak", "ash"])
    assert set(held_out[1]) == {"ash", "oak"} and set(rest[1]) == {"elm", "fir"}
    assert (y[rest[0]["ids"]] == rest[1]).all() and len(rest[1]) == 19
    numbers = np.arange(38) % 4
    assert set(hold_out_classes(x, numbers, [2])[1][1]) == {2}


def test_bad_input_is_refused():
    x, y = numbered()

    def made(*args, x=x, y=y, **kwargs):
        return episodes(x, y, *args, **kwargs)

    with pytest.raises(ValueError, match="'ash' has 8"):
        made(2, 4, 5)
    with pytest.raises(ValueError, match="way=1"):
        made(1, 1, 1)
    with pytest.raises(ValueError, match="way=5, but y has 4 classes"):
        made(5, 1, 1)
    with pytest.raises(ValueError, match="shot=0"):
        made(2, 0, 1)
    with pytest.raises(ValueError, match="query=0"):
        made(2, 1, 0)
    with pytest.raises(ValueError, match="not a multiple of batch_size=3"):
        made(2, 1, 1, num_episodes=4, batch_size=3)
    with pytest.raises(ValueError, match="but y has 37 labels"):
        made(2, 1, 1, y=y[1:])
    with pytest.raises(ValueError, match="one-hot"):
        made(2, 1, 1, y=np.eye(38))
    with pytest.raises(ValueError, match="NaN or infinite"):
        made(2, 1, 1, x=np.where(x == 3, np.nan, x))
    with pytest.raises(ValueError, match="must be different classes of y"):
        hold_out_classes(x, y, ["yew"])
    with pytest.raises(ValueError, match="must be different classes of y"):
        hold_out_classes(x, y, ["oak", "oak"])
    with pytest.raises(ValueError, match="are all of the 4 classes"):
        hold_out_classes(x, y, NAMES)
    with pytest.raises(ValueError, match="are none of the 4 classes"):
        hold_out_classes(x, y, [])


def test_is_public():
    assert kt.data.episodes is episodes and kt.data.hold_out_classes
