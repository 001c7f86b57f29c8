"""episodes: small classification tasks, drawn from the classes of a dataset."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer._arguments import whole_number
from keras_transfer.data.examples import map_arrays
from keras_transfer.data.finite_numbers import has_broken
from keras_transfer.data.labels import listed


def episodes(
    x: Any,
    y: Any,
    way: int,
    shot: int,
    query: int,
    *,
    num_episodes: int = 100,
    batch_size: int = 1,
    shuffle: bool = True,
    seed: int = 0,
) -> tf.data.Dataset:
    """Return a dataset of few-shot tasks, for `PrototypicalNetwork` and `MAML`.

    An episode is a small classification task: `way` classes, drawn at random without
    replacement, with `shot` labeled examples of each, the support set, and `query`
    other examples of each, whose class is asked. A class has another number, from 0
    to `way - 1`, in each episode. The model thus cannot learn the classes, only to
    compare examples.

    An element is `({"support": s, "query": q}, numbers)` with the shapes

    - s: `(batch_size, way, shot, ...)`,
    - q: `(batch_size, way * query, ...)`,
    - numbers: `(batch_size, way * query)`, int32.

    All shapes are static, which XLA needs. A batch has whole episodes, so replicas of
    a `tf.distribute` strategy share the episodes of a batch, and `batch_size` should
    be a multiple of their number.

    Measure with classes that were not used in training: `kt.data.hold_out_classes`.

    Args:
        x: Array of examples, or a structure of arrays such as the inputs of a text
            backbone. It must fit into memory.
        y: Array of class names or whole numbers, one for each example.
        way: Int of at least 2, the number of classes of an episode.
        shot: Int of at least 1, support examples of each class.
        query: Int of at least 1, query examples of each class.
        num_episodes: Int, the episodes of a pass. A multiple of `batch_size`. Defaults
            to 100.
        batch_size: Int, the episodes of a step. Defaults to 1, as in the paper.
        shuffle: Whether each pass has new episodes, for training. With False, each pass
            has the same ones, for validation and tests. Defaults to True.
        seed: Int of 0 or more, the seed of the draws. Defaults to 0.

    Returns:
        A `tf.data.Dataset` of known length, `num_episodes / batch_size` batches.

    Raises:
        ValueError: If there are fewer classes than `way`, a class has fewer examples
            than `shot + query`, features are not finite, the numbers of examples and
            labels differ, or an argument is out of range.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        x, y = np.random.rand(30, 4), np.repeat(["a", "b", "c"], 10)
        data = kt.data.episodes(x, y, way=2, shot=1, query=5, num_episodes=3)
        episode, numbers = next(iter(data))
        assert episode["support"].shape == (1, 2, 1, 4)
        assert episode["query"].shape == (1, 10, 4) and numbers.shape == (1, 10)
        ```

    Reference:
        Vinyals et al., 2016, "Matching Networks for One Shot Learning",
        arXiv 1606.04080.
    """
    whole_number("way", way, 2, why="an episode chooses between classes")
    whole_number("shot", shot)
    whole_number("query", query)
    whole_number("num_episodes", num_episodes)
    whole_number("batch_size", batch_size)
    whole_number("seed", seed, 0)
    if num_episodes % batch_size:
        raise ValueError(
            f"num_episodes={num_episodes} is not a multiple of batch_size={batch_size},"
            " so the last batch would have another shape. Change one of the two."
        )
    x, classes = checked_examples(x, y)
    rows, counts = _rows_of_classes(classes, way, shot, query)
    draw = _draw(rows, counts, way, shot, query)
    tensors = keras.tree.map_structure(tf.constant, x)

    def gather(support: tf.Tensor, asked: tf.Tensor, numbers: tf.Tensor) -> tuple:
        def of(places: tf.Tensor) -> Any:
            return keras.tree.map_structure(lambda t: tf.gather(t, places), tensors)

        return {"support": of(support), "query": of(asked)}, numbers

    draws = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=bool(shuffle))
    found = draws.take(num_episodes).map(lambda each: draw(tf.stack([seed, each])))
    found = found.batch(batch_size, drop_remainder=True)
    return found.map(gather).prefetch(2)


def checked_examples(x: Any, y: Any) -> tuple[Any, np.ndarray]:
    """Return examples and their classes as arrays, or raise an error.

    Raises:
        ValueError: If the labels are not one class for each example, or features are
            not finite.
    """
    x = map_arrays(lambda a: a.astype(object) if a.dtype.kind == "U" else a, x)
    classes = np.asarray(y)
    if classes.dtype.kind == "O":
        classes = classes.astype(str)
    if classes.ndim != 1 or classes.dtype.kind not in "iuUSb":
        raise ValueError(
            f"y has the shape {classes.shape} and the dtype {classes.dtype}. Pass one "
            "class for each example, a name or a whole number. If the labels are "
            "one-hot, pass y.argmax(-1)."
        )
    counts = {len(each) for each in keras.tree.flatten(x)}
    if counts != {len(classes)}:
        raise ValueError(
            f"x has {sorted(counts)} examples, but y has {len(classes)} labels. Pass "
            "one label for each example."
        )
    if has_broken(x):
        raise ValueError(
            "x has features that are NaN or infinite, which would make each prototype "
            "of their class NaN. Remove these examples, or fill in the values."
        )
    return x, classes


def _rows_of_classes(
    classes: np.ndarray, way: int, shot: int, query: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of each class, padded to the largest class, and their counts."""
    names, numbers, counts = np.unique(classes, return_inverse=True, return_counts=True)
    if len(names) < way:
        raise ValueError(
            f"way={way}, but y has {len(names)} classes: {listed(names)}. Lower `way`, "
            "or pass more classes."
        )
    few = [
        f"{name!r} has {count}"
        for name, count in zip(names.tolist(), counts, strict=True)
        if count < shot + query
    ]
    if few:
        raise ValueError(
            f"shot={shot} and query={query} need {shot + query} examples of each class,"
            f" but {len(few)} of {len(names)} classes have fewer: {listed(few)}. Lower "
            "`shot` or `query`, or leave these classes out."
        )
    rows = np.zeros((len(names), counts.max()), "int64")
    order = np.argsort(numbers, kind="stable")
    for number, of_class in enumerate(np.split(order, np.cumsum(counts)[:-1])):
        rows[number, : len(of_class)] = of_class
    return rows, counts


def _draw(rows: np.ndarray, counts: np.ndarray, way: int, shot: int, query: int) -> Any:
    """Return a function from a seed of two numbers to the rows of an episode."""
    table, sizes = tf.constant(rows), tf.constant(counts[:, None])
    places = tf.range(rows.shape[1], dtype=tf.int64)[None]
    numbers = tf.repeat(tf.range(way), query)

    def draw(seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        # The largest of uniform numbers are a draw without replacement.
        first, second = tf.unstack(tf.random.split(seed, 2))
        of_classes = tf.random.stateless_uniform((len(rows),), first)
        chosen = tf.math.top_k(of_classes, way).indices
        of_rows = tf.random.stateless_uniform((way, rows.shape[1]), second)
        of_rows = tf.where(places < tf.gather(sizes, chosen), of_rows, -1.0)
        found = tf.math.top_k(of_rows, shot + query).indices
        found = tf.gather(tf.gather(table, chosen), found, batch_dims=1)
        return found[:, :shot], tf.reshape(found[:, shot:], (-1,)), numbers

    return draw
