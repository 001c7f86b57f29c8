"""replay: batches of new examples with a fixed share of old ones."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer._arguments import number
from keras_transfer._arguments import whole_number
from keras_transfer.data import domain_streams
from keras_transfer.data.domain_streams import Stream
from keras_transfer.data.examples import count_rows


def replay(
    new: tuple | tf.data.Dataset,
    old: tuple | tf.data.Dataset,
    *,
    share: float = 0.5,
    batch_size: int = 32,
    steps: int | None = None,
    seed: int = 0,
) -> tf.data.Dataset:
    """Return batches of a new task, each with the same number of old examples.

    A model that trains on new data alone forgets what it has learned from old data.
    Replay repeats some old examples while it trains on the new ones. It is the simplest
    method, and often the best, if old data can be kept.

    Each batch has exactly `share * batch_size` old examples, spread evenly over the
    batch, so each replica of a strategy gets its part of both. An epoch is one pass
    over `new`: the last batch is filled from the next pass. `old` goes through all its
    examples, in a new order each time, before one returns, also if it is longer or
    shorter than an epoch. The orders depend on `seed` and the epoch only.

    Args:
        new: Examples of the new task, `(x, y)` or `(x, y, sample_weight)`, as arrays or
            a `tf.data.Dataset` of single examples.
        old: Examples of the old tasks, with the same structure, shapes and dtypes.
        share: Number above 0 and below 1, the share of old examples.
            `share * batch_size` has to be a whole number. Defaults to 0.5.
        batch_size: Int, examples in each batch, of both. Defaults to 32.
        steps: Int, the steps of an epoch. It is needed if `new` is a dataset without a
            known end. Defaults to None, one pass over `new`.
        seed: Int of 0 or more, the seed of the orders. Defaults to 0.

    Returns:
        A `tf.data.Dataset` of known length, for `fit`.

    Raises:
        TypeError: If the data can be read only once, is ragged, or of an unknown kind.
        ValueError: If `share` is not the share of a whole number of examples, if the
            two differ in structure, shape or dtype, or if one is empty or has no known
            end.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        old = np.zeros((6, 2)), np.zeros(6, int)
        new = np.ones((9, 2)), np.ones(9, int)
        data = kt.data.replay(new, old, share=0.25, batch_size=4)
        assert len(data) == 3  # each batch has 3 of the 9 new examples
        assert [int(sum(y)) for x, y in data] == [3, 3, 3]
        ```

    Reference:
        Chaudhry et al. 2019, On Tiny Episodic Memories in Continual Learning,
        arXiv:1902.10486.
    """
    share = number("share", share, above=0, below=1)
    whole_number("batch_size", batch_size)
    whole_number("seed", seed, 0)
    if steps is not None:
        whole_number("steps", steps)
    of_old = _whole_share(share, batch_size)
    streams = [_stream("new", new), _stream("old", old)]
    _check_same(*streams)
    sizes = batch_size - of_old, of_old
    counts = [domain_streams.count(each, 1) for each in streams]
    if steps is None:
        if counts[0] is None:
            raise ValueError(
                "`new` has no end, or its length is unknown, so an epoch has no "
                "length. Pass steps=, the steps of an epoch."
            )
        steps = -(-counts[0] // sizes[0])
    parts = tuple(
        domain_streams.endless(each, size, steps * size, (seed, place))
        for place, (each, size) in enumerate(zip(streams, sizes, strict=True))
    )
    order = _spread(*sizes)

    def mixed(new: Any, old: Any) -> Any:
        return keras.tree.map_structure(
            lambda *rows: tf.gather(tf.concat(rows, 0), order), new, old
        )

    known = tf.data.experimental.assert_cardinality(steps)
    zipped = tf.data.Dataset.zip(parts).take(steps).apply(known)
    return zipped.map(mixed).prefetch(tf.data.AUTOTUNE)


def _whole_share(share: float, batch_size: int) -> int:
    wanted = share * batch_size
    found = round(wanted)
    if abs(wanted - found) > 1e-6 or not 0 < found < batch_size:
        near = sorted({int(wanted), int(wanted) + 1} - {0, batch_size})
        shares = " or ".join(f"{each / batch_size:g}" for each in near)
        fix = f"Pass share={shares}, or another" if near else "Pass another"
        raise ValueError(
            f"share={share:g} of batch_size={batch_size} is {wanted:g} old examples in "
            f"each batch, which is not a whole number that leaves room for both. {fix} "
            "batch_size."
        )
    return found


def _stream(name: str, data: Any) -> Stream:
    stream = domain_streams.read(name, data)
    element = stream.spec
    if not isinstance(element, tuple) or len(element) not in (2, 3):
        raise ValueError(
            f"`{name}` has no labels. Pass a tuple (x, y) or (x, y, sample_weight)."
        )
    if stream.is_dataset and stream.looks_batched:
        raise ValueError(
            f"`{name}` is already batched, so its examples cannot be mixed with others "
            f"one by one. Leave out its batch(), or pass {name}.unbatch()."
        )
    if not stream.is_dataset:
        count_rows(stream.data, name)
    return stream


def _check_same(new: Stream, old: Stream) -> None:
    try:
        keras.tree.assert_same_structure(new.spec, old.spec)
        fits = all(
            a.dtype == b.dtype and a.shape.is_compatible_with(b.shape)
            for a, b in zip(
                keras.tree.flatten(new.spec), keras.tree.flatten(old.spec), strict=True
            )
        )
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"An example of `new` is {new.spec}, but one of `old` is {old.spec}. One "
            "batch has both, so the structure, shapes and dtypes must be the same."
        )


def _spread(new: int, old: int) -> np.ndarray:
    """Return an order in which the old rows, which come last, are spread evenly."""
    places = np.concatenate([(np.arange(n) + 0.5) / n for n in (new, old)])
    return np.argsort(places, kind="stable")
