"""Check that the source has labels, the target has none, and both have the same x."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.data import domain_streams
from keras_transfer.data.domain_streams import Stream
from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import DATASET
from keras_transfer.data.examples import kind_of
from keras_transfer.data.tsv import Texts


def labeled(source: Any) -> Stream:
    """Return the source as a Stream, after checking its labels."""
    if isinstance(source, Texts):
        raise ValueError(
            "`source` is the result of from_tsv, which also contains the names of the "
            "classes. Pass source=(train.texts, train.labels)."
        )
    kind = kind_of(source, "source", x_alone=True, py_dataset=False)
    element = source.element_spec if kind == DATASET else source
    if not isinstance(element, tuple) or len(element) not in (2, 3):
        what = f"a {type(element).__name__}"
        if isinstance(element, tuple):
            what = f"a tuple of {len(element)}"
        raise ValueError(
            f"`source` has no labels, because it contains {what}. Pass a tuple (x, y) "
            "or (x, y, sample_weight)."
        )
    nothing = isinstance(element[1], type(tf.type_spec_from_value(None)))
    if element[1] is None or nothing:
        raise ValueError(
            "`source` has no labels, because y is None. Pass (x, y) or "
            "(x, y, sample_weight)."
        )
    if len(element) == 3 and element[2] is None:
        source = source[:2]
    stream = domain_streams.read("source", source)
    if not stream.is_dataset:
        count_rows(stream.data, "source")
        _check_numbers(stream.data[1:])
        _check_classes(stream.data[1])
    return stream


def unlabeled(target: Any) -> Stream:
    """Return the target as a Stream."""
    if isinstance(target, Texts):
        raise _leak("target.texts")
    return domain_streams.read("target", target)


def check_batched(source: Stream, target: Stream, batched: bool) -> None:
    """Check that there is a batch_size if and only if the domains are not batched.

    Raises:
        ValueError: If batch_size does not fit the shapes of the domains.
    """
    promise = "batch_size=None means that both domains are datasets of batches, but "
    for each in (source, target):
        if batched and not each.is_dataset:
            raise ValueError(
                f"{promise}`{each.name}` is arrays. Pass a batch_size. If the other "
                "domain is a dataset, it must then have single examples."
            )
    scalars = 0 in [each.shape.rank for each in keras.tree.flatten(target.spec)]
    if batched and not source.looks_batched:
        raise ValueError(_single(source))
    if batched and scalars:
        raise ValueError(_single(target))
    if not batched and source.is_dataset and source.looks_batched:
        raise ValueError(
            f"{_cut(source)} (If these are single examples with equal first axes, "
            "batch both domains yourself by batch(size, drop_remainder=True).)"
        )


def check_same(source: Stream, target: Stream, batched: bool) -> None:
    """Check that the x of both domains have the same structure, shape and dtype.

    Raises:
        ValueError: If they differ.
    """
    x, other = source.example(batched)[0], target.example(batched)
    if _structure(x) != _structure(other):
        several = isinstance(other, tuple) and len(other) > 1
        if several and _structure(other[0]) == _structure(x):
            raise _leak(
                "target.map(lambda x, *rest: x)" if target.is_dataset else "target[0]"
            )
        raise ValueError(
            f"The x of `source` is {_shown(x)}, but `target` is {_shown(other)}. Pass "
            "the same structure for both, because one network processes both."
        )
    pairs = list(zip(keras.tree.flatten(x), keras.tree.flatten(other), strict=True))
    more = {b.shape.rank - a.shape.rank for a, b in pairs}
    if target.is_dataset and batched and more == {-1}:
        raise ValueError(_single(target))
    if target.is_dataset and not batched and more == {1}:
        raise ValueError(_cut(target))
    for a, b in pairs:
        if a.dtype != b.dtype or not a.shape.is_compatible_with(b.shape):
            raise ValueError(
                f"An example of `source` is {_shown(x)}, but an example of `target` is "
                f"{_shown(other)}. One network processes both, so shapes and dtypes "
                "must be the same. Resize, repeat channels, pad, or cast one of them."
            )
    if not target.is_dataset:
        count_rows(target.data, "target")


def check_static(stream: Stream, batched: bool) -> None:
    """Check that all examples have the same static shape.

    Raises:
        ValueError: If a size is unknown.
    """
    for each in keras.tree.flatten(stream.example(batched)):
        if not each.shape.is_fully_defined():
            raise ValueError(
                f"The examples of `{stream.name}` have an axis of unknown size, "
                f"{each}, but all batches must have the same shape. Resize images, pad "
                "token ids to one length, or set the size with tf.ensure_shape."
            )


def _check_numbers(labels: Any) -> None:
    for each in keras.tree.flatten(labels):
        if each.dtype.kind in "fcV":  # bfloat16 is of kind "V"
            wrong = np.count_nonzero(~np.isfinite(each.astype("float64")))
            if wrong:
                raise ValueError(
                    f"{wrong} of {each.size} labels or weights of `source` are NaN or "
                    "infinite. Remove these examples."
                )


def _check_classes(labels: Any) -> None:
    # With several labels for each example, one of them can be the same for all.
    if not isinstance(labels, np.ndarray) or len(labels) < 2:
        return
    if (labels == labels[:1]).all():
        raise ValueError(
            f"All {len(labels)} labels of `source` are of one class, {labels[0]}. "
            "Training needs at least two classes. Check whether `source` is a part of "
            "data that is sorted by class."
        )


def _structure(value: Any) -> Any:
    return keras.tree.map_structure(lambda _: 0, value)


def _shown(value: Any) -> str:
    return str(
        keras.tree.map_structure(lambda x: f"{x.dtype.name} of {x.shape}", value)
    )


def _single(stream: Stream) -> str:
    return (
        "batch_size=None means that both domains are datasets of batches, but "
        f"`{stream.name}` has single examples, {_shown(stream.spec)}. Pass a "
        "batch_size, or call batch(size) on both."
    )


def _cut(stream: Stream) -> str:
    return (
        f"`{stream.name}` is already batched, {_shown(stream.spec)}, so batch_size "
        "cannot be used. Leave out its batch(), or pass batch_size=None if both "
        "domains are batched."
    )


def _leak(fix: str) -> ValueError:
    return ValueError(
        "`target` is a tuple, so the labels of the target would leak into training. "
        f"Pass x alone: {fix}. Use labels of the target only in validation_data."
    )
