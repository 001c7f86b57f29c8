"""domain_dataset, which combines labeled source and unlabeled target batches."""

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

    Unsupervised domain adaptation uses labeled source examples and unlabeled target
    examples in each step, in equal numbers. Keras does not accept arrays of different
    lengths. In this dataset, an epoch is one pass over the longer domain. The shorter
    domain is repeated, with a new order in each pass. All batches are full, so shapes
    are static (for XLA and TPUs) and the domains are balanced. The last batch of the
    longer domain is filled from its next pass, so no example is left out.

    Under `tf.distribute`, a batch is split along its first axis, and each replica gets
    its share of both domains. `batch_size` is the size for all replicas together and
    must be divisible by the number of replicas. This is checked if you call the
    function under `strategy.scope()`.

    Each iterator is one epoch. The order of a pass depends on `seed`, the epoch number
    and the pass number, and not on the global seed. So the orders are the same in each
    run. A resumed run starts again with the first order. Under a strategy, the first
    epoch has the second order, because `fit` takes a batch before the epoch.

    Args:
        source: Labeled examples, `(x, y)` or `(x, y, sample_weight)`, as a tuple of
            arrays or a `tf.data.Dataset` of tuples. x is an array, also of strings, or
            a structure of arrays such as a dictionary of token ids and masks.
        target: The x of unlabeled examples, as arrays or a `tf.data.Dataset`. It must
            have the structure, shape and dtype of the x of the source.
        batch_size: Integer of 1 or more, the number of examples of each domain in each
            step. Arrays and datasets of single examples are batched with it. `None`
            means that both domains are already datasets of batches of the same size,
            such as `kt.data.from_tfds` returns. The order of the batches is then kept,
            and the first batches are read to get their size.
        shuffle: Bool, whether to shuffle arrays and single examples. For a dataset, up
            to 512 MiB of examples are kept in memory. Batches are not shuffled, so
            shuffle examples before you batch them. Defaults to `True`.
        seed: Integer of 0 or more, the seed of the orders. Defaults to 0.
        steps: Integer of 1 or more, the number of steps of an epoch. Both domains start
            again in the next epoch. `steps` is needed if a dataset is infinite or has
            an unknown length. Defaults to `None`, one pass over the longer domain.

    Returns:
        A `tf.data.Dataset` of known length. Its elements are
        `({"source": xs, "target": xt}, ys)`, or with weights
        `({"source": xs, "target": xt}, ys, sample_weight)`.

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
        ValueError: If the target has labels, or the source has no labels or only one
            class, if the domains differ in structure, shape or dtype, if a domain is
            empty, smaller than a batch, infinite without `steps`, or does not fit
            `batch_size`, or if another argument is not valid.

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
            f"The batches of `source` have {sizes[0]} examples, but the batches of "
            f"`target` have {sizes[1]}. Use the same batch size for both."
        )
    return sizes[0]


def _check_known(streams: tuple[Stream, Stream], counts: list[int | None]) -> None:
    for stream, number in zip(streams, counts, strict=True):
        if number is None:
            raise ValueError(
                f"`{stream.name}` has no end, or its length is unknown, so an epoch "
                "has no length. Pass steps=, the steps of an epoch. Or leave out its "
                "repeat(), or set the number of its elements with "
                "apply(tf.data.experimental.assert_cardinality(number))."
            )


def _check_replicas(batch_size: int) -> None:
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if batch_size % replicas:
        raise ValueError(
            f"batch_size={batch_size} is not divisible by {replicas}, the number of "
            "replicas that share a batch. Pass a multiple, such as "
            f"{batch_size - batch_size % replicas or replicas}."
        )


def _check_settings(batch_size: Any, shuffle: Any, seed: Any, steps: Any) -> None:
    whole_number("seed", seed, 0)
    for name, value in (("batch_size", batch_size), ("steps", steps)):
        if value is not None:
            whole_number(name, value)
    if not isinstance(shuffle, bool):
        raise ValueError(
            f"shuffle={shuffle!r} must be True or False. Pass a seed as `seed`."
        )
