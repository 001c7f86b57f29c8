"""domain_dataset: labeled source and unlabeled target, side by side in each batch."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_transfer._arguments import whole_number
from keras_transfer.data import domain_checks
from keras_transfer.data import domain_streams
from keras_transfer.data.domain_streams import Stream


def domain_dataset(
    source: tuple | tf.data.Dataset,
    target: Any,
    batch_size: int | None,
    *,
    shuffle: bool = True,
    seed: int = 0,
    steps: int | None = None,
) -> tf.data.Dataset:
    """Return batches `({"source": x, "target": x}, y)` of two domains for `fit`.

    Methods of unsupervised domain adaptation see, in each step, labeled examples of
    the source and as many unlabeled ones of the target. Keras refuses arrays of two
    lengths; here each epoch goes once through the longer domain, while the shorter
    begins again, in another order. All batches are full, so that shapes are static
    (for XLA and TPUs) and domains stay in balance: what is left at the end of the
    longer is filled up from its next pass, and no example of it is missed.

    Under `tf.distribute` a batch is split along its first axis. Since each domain is
    a tensor of its own, each replica gets its share of both; `batch_size` must be
    divisible by the number of replicas, which is checked if you call this under
    `strategy.scope()`. It is that of all replicas together.

    Each iterator is one epoch. The order of a pass follows from `seed`, the number of
    the epoch and that of the pass in it: the same in each run, whatever the global
    seed is. A run that is resumed begins with the first order again; and under a
    strategy the first epoch has the second, since `fit` draws a batch before it.

    Args:
        source: Labeled examples, `(x, y)` or `(x, y, sample_weight)`: a tuple of
            arrays, or a `tf.data.Dataset` of these. x is an array, of strings too,
            or a structure of arrays such as a dictionary of token ids and masks.
        target: The x of unlabeled examples: arrays or a `tf.data.Dataset`, with the
            structure, shape and dtype of the x of the source.
        batch_size: Examples of each domain a step; arrays and datasets of single
            examples are cut by it. `None` says that both are datasets of batches, as
            `kt.data.from_tfds` returns them, of one size. They come in the order that
            they have themselves; their first batches are read for their size.
        shuffle: Whether arrays and single examples are shuffled. Of a dataset, up to
            512 MiB of examples are held for it. Batches cannot be: shuffle before
            they are cut. Defaults to `True`.
        seed: Seed of the orders, a whole number of 0 or more. Defaults to 0.
        steps: Steps of an epoch, which ends after them and begins both domains
            anew. Needed if a dataset has no end, or does not know its length.
            Defaults to `None`: one pass over the longer domain.

    Returns:
        A `tf.data.Dataset` of known length, of `({"source": xs, "target": xt}, ys)`,
        or `({...}, ys, sample_weight)`.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        x, y = np.random.rand(100, 4), np.arange(100) % 2
        other = np.random.rand(60, 4) + 1
        data = kt.data.domain_dataset((x, y), other, 20)
        assert len(data) == 5
        inputs, labels = next(iter(data))
        assert inputs["source"].shape == inputs["target"].shape == (20, 4)
        ```

    Raises:
        TypeError: If a domain is an iterator, ragged, or of an unknown kind.
        ValueError: If the target has labels, the source has none or of one class
            only, the domains differ in structure, shape or dtype, one is empty, has
            fewer examples than a batch, is batched where it should not be or has no
            end, or a number cannot be used.

    Reference:
        Ganin et al., 2016, "Domain-Adversarial Training of Neural Networks",
        JMLR 17(59), arXiv 1505.07818, section 5.2.2 (half of each batch a domain).
    """
    _check_settings(batch_size, shuffle, seed, steps)
    labeled = domain_checks.labeled(source)
    unlabeled = domain_checks.unlabeled(target)
    streams = (labeled, unlabeled)
    batched = batch_size is None
    domain_checks.check_batched(labeled, unlabeled, batched)
    domain_checks.check_same(labeled, unlabeled, batched)
    for each in streams:
        domain_checks.check_static(each, batched)
    if batched:
        batch_size = _common_size(*streams)
        least, per_step = 1, 1
    else:
        least = per_step = batch_size
    _check_replicas(batch_size)
    counts = [domain_streams.count(each, least) for each in streams]
    if steps is None:
        _check_known(streams, counts)
        steps = max(-(-number // per_step) for number in counts)
    endless = []
    for number, each in enumerate(streams):
        if batched:
            endless.append(domain_streams.endless_batches(each, batch_size))
        else:
            orders = (seed, number) if shuffle else None
            endless.append(
                domain_streams.endless(each, batch_size, steps * batch_size, orders)
            )
    zipped = tf.data.Dataset.zip(tuple(endless)).map(
        lambda xy, x: ({"source": xy[0], "target": x}, *xy[1:])
    )
    known = tf.data.experimental.assert_cardinality(steps)
    return zipped.take(steps).apply(known).prefetch(tf.data.AUTOTUNE)


def _common_size(source: Stream, target: Stream) -> int:
    sizes = [domain_streams.batch_size_of(each) for each in (source, target)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"The batches of `source` have {sizes[0]} examples, and those of `target` "
            f"{sizes[1]}. Each step takes as many of both: cut them alike."
        )
    return sizes[0]


def _check_known(streams: tuple[Stream, Stream], counts: list[int | None]) -> None:
    for stream, number in zip(streams, counts, strict=True):
        if number is None:
            raise ValueError(
                f"`{stream.name}` has no end, or does not know it, so an epoch has no "
                "length. Pass steps=, the steps of an epoch; or leave out its "
                "repeat(), or tell how many elements it has by "
                "apply(tf.data.experimental.assert_cardinality(number))."
            )


def _check_replicas(batch_size: int) -> None:
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if batch_size % replicas:
        raise ValueError(
            f"batch_size={batch_size} is that of all {replicas} replicas together, and "
            "must be divisible by their number, so that each gets as many of each "
            f"domain. Pass {batch_size - batch_size % replicas or replicas}, say."
        )


def _check_settings(batch_size: Any, shuffle: Any, seed: Any, steps: Any) -> None:
    whole_number("seed", seed, 0)
    for name, value in (("batch_size", batch_size), ("steps", steps)):
        if value is not None:
            whole_number(name, value)
    if not isinstance(shuffle, bool):
        raise ValueError(
            f"shuffle={shuffle!r} must be True or False. The seed is `seed`."
        )
