"""What two domains must be: source with labels, target without, the same in x."""

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
    """Return the source as a Stream, with its labels checked."""
    if isinstance(source, Texts):
        raise ValueError(
            "`source` is what from_tsv returns, of which the third is the names of "
            "the classes. Pass source=(train.texts, train.labels)."
        )
    kind = kind_of(source, "source", x_alone=True, py_dataset=False)
    element = source.element_spec if kind == DATASET else source
    if not isinstance(element, tuple) or len(element) not in (2, 3):
        what = f"a {type(element).__name__}"
        if isinstance(element, tuple):
            what = f"a tuple of {len(element)}"
        raise ValueError(
            f"`source` has no labels: what it holds is {what}. It must be (x, y) or "
            "(x, y, sample_weight), a tuple."
        )
    nothing = isinstance(element[1], type(tf.type_spec_from_value(None)))
    if element[1] is None or nothing:
        raise ValueError(
            "`source` has no labels: its y is None. It must be (x, y) or "
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
    """Check that batch_size is given where examples are single, and only there.

    Raises:
        ValueError: If it is not, as far as the labels of the source tell.
    """
    promise = "batch_size=None says that both domains are datasets of batches, but "
    for each in (source, target):
        if batched and not each.is_dataset:
            raise ValueError(
                f"{promise}`{each.name}` is arrays. Pass a batch_size; a dataset "
                "next to arrays is then one of single examples."
            )
    scalars = 0 in [each.shape.rank for each in keras.tree.flatten(target.spec)]
    if batched and not source.looks_batched:
        raise ValueError(_single(source))
    if batched and scalars:
        raise ValueError(_single(target))
    if not batched and source.is_dataset and source.looks_batched:
        raise ValueError(
            f"{_cut(source)} (If single examples have axes of one size by chance, cut "
            "both yourself, by batch(size, drop_remainder=True).)"
        )


def check_same(source: Stream, target: Stream, batched: bool) -> None:
    """Check that the x of both have the same structure, rank, shape and dtype.

    Raises:
        ValueError: If they are not.
    """
    x, other = source.example(batched)[0], target.example(batched)
    if _structure(x) != _structure(other):
        several = isinstance(other, tuple) and len(other) > 1
        if several and _structure(other[0]) == _structure(x):
            raise _leak(
                "target.map(lambda x, *rest: x)" if target.is_dataset else "target[0]"
            )
        raise ValueError(
            f"The x of `source` is {_shown(x)}, and `target` is {_shown(other)}. Both "
            "must have the same structure, since one network reads both."
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
                f"An example of `source` is {_shown(x)}, and of `target` "
                f"{_shown(other)}. One network reads both, so shapes and dtypes must "
                "be the same: resize, repeat channels, pad, or cast one of them."
            )
    if not target.is_dataset:
        count_rows(target.data, "target")


def check_static(stream: Stream, batched: bool) -> None:
    """Check that all examples have one shape, known beforehand.

    Raises:
        ValueError: If they have not.
    """
    for each in keras.tree.flatten(stream.example(batched)):
        if not each.shape.is_fully_defined():
            raise ValueError(
                f"The examples of `{stream.name}` have an axis of unknown size, "
                f"{each}, and batches must have one shape. Resize images, pad token "
                "ids to one length, or tell the size by tf.ensure_shape."
            )


def _check_numbers(labels: Any) -> None:
    for each in keras.tree.flatten(labels):
        if each.dtype.kind in "fcV":  # "V" are bfloat16 and its like
            wrong = np.count_nonzero(~np.isfinite(each.astype("float64")))
            if wrong:
                raise ValueError(
                    f"{wrong} of {each.size} labels or weights of `source` are NaN or "
                    "infinite. Take out the examples that have none."
                )


def _check_classes(labels: Any) -> None:
    # Of several labels an example, one may well be the same for all.
    if not isinstance(labels, np.ndarray) or len(labels) < 2:
        return
    if (labels == labels[:1]).all():
        raise ValueError(
            f"All {len(labels)} labels of `source` are of one class, {labels[0]}: "
            "there is nothing to distinguish. Are the data sorted by class, and cut?"
        )


def _structure(value: Any) -> Any:
    return keras.tree.map_structure(lambda _: 0, value)


def _shown(value: Any) -> str:
    return str(
        keras.tree.map_structure(lambda x: f"{x.dtype.name} of {x.shape}", value)
    )


def _single(stream: Stream) -> str:
    return (
        "batch_size=None says that both domains are datasets of batches, but "
        f"`{stream.name}` has single examples, {_shown(stream.spec)}. Pass a "
        "batch_size, or cut both by batch(size)."
    )


def _cut(stream: Stream) -> str:
    return (
        f"`{stream.name}` has batches already, {_shown(stream.spec)}, so batch_size "
        "cannot be used. Leave out its batch(), or pass batch_size=None if both have "
        "batches."
    )


def _leak(mend: str) -> ValueError:
    return ValueError(
        "`target` is a tuple: the labels of the target would leak into training. Pass "
        f"x alone: {mend}. Labels of the target are for validation_data only."
    )
