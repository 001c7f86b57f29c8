"""few_labels, which keeps the labels of a few examples of each class."""

from typing import Any
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_transfer._arguments import whole_number
from keras_transfer.backbones.fingerprint import RowDigest
from keras_transfer.data.examples import check_dense
from keras_transfer.data.examples import check_finite
from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import DATASET
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import map_arrays
from keras_transfer.data.labels import choose_per_class
from keras_transfer.data.labels import labels_of
from keras_transfer.data.labels import listed
from keras_transfer.data.labels import whole_numbers

READ_AT_ONCE = 256  # number of single examples, if all have the same size


class FewLabels(NamedTuple):
    """Data with few labels. `unlabeled` has the x of all other examples."""

    labeled: Any
    unlabeled: Any


def few_labels(
    data: tuple | tf.data.Dataset, labels_per_class: int, *, seed: int = 0
) -> FewLabels:
    """Keep the labels of `labels_per_class` examples of each class.

    Use this function to measure transfer learning with few labels. The selection is
    stratified by class. With the same seed, it is the same for arrays and for a dataset
    of the same examples. Selections with the same seed are nested. For example, a
    selection of 10 examples per class contains the selection of 5, so a curve over the
    number of labels only adds examples. Report results over several seeds, because with
    few labels the results vary a lot with the selection.

    A `tf.data.Dataset` is read twice, to get its labels and to check that its examples
    do not change. A dataset that shuffles or augments at random raises an error,
    because it would mix labeled and unlabeled examples. Shuffle and augment after the
    split. `labeled` reads the dataset once more and is then kept in memory.
    `unlabeled` reads the dataset in each pass.

    Args:
        data: A tuple of arrays `(x, y)` or `(x, y, sample_weight)`, or a finite
            `tf.data.Dataset` of such tuples. x can be a structure of arrays such as a
            dictionary. A dataset with scalar y has single examples. All other datasets
            are read as batched. A class is a whole number of 0 or more, a string, or a
            one-hot row.
        labels_per_class: Integer of 1 or more, the number of examples to select from
            each class. Each class must have at least this number of examples.
        seed: Integer of 0 or more, the seed of the selection. Defaults to 0.

    Returns:
        A named tuple `(labeled, unlabeled)`. `labeled` has the type and the order of
        `data`. It is a tuple of arrays, or a dataset of known length with the same
        batch size. `unlabeled` has the x of all other examples. Arrays of str are
        returned with the dtype object, which Keras needs.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        x, y = np.random.rand(100, 4), np.arange(100) % 2
        labeled, unlabeled = kt.data.few_labels((x, y), 5, seed=1)
        assert np.bincount(labeled[1]).tolist() == [5, 5]
        assert unlabeled.shape == (90, 4)
        ```

    Raises:
        TypeError: If `data` is of another type or ragged, or y is a structure.
        ValueError: If a class has too few examples, labels are not classes, or a
            dataset is empty, infinite, or changes between passes.

    Reference:
        Oliver et al., 2018, "Realistic Evaluation of Deep Semi-Supervised Learning
        Algorithms", arXiv:1804.09170.
    """
    whole_number("labels_per_class", labels_per_class)
    whole_number("seed", seed, 0)
    kind = kind_of(data, py_dataset=False)
    split = _of_dataset if kind == DATASET else _of_arrays
    return split(data, labels_per_class, seed)


def _of_arrays(data: tuple, labels_per_class: int, seed: int) -> FewLabels:
    labels_of(data)
    parts = [map_arrays(_as_keras_takes_it, each) for each in data]
    count_rows(data)
    chosen = _choose(parts[1], labels_per_class, seed)
    labeled = (map_arrays(lambda array: array[chosen], each) for each in parts)
    unlabeled = map_arrays(lambda array: array[~chosen], parts[0])
    return FewLabels(tuple(labeled), unlabeled)


def _as_keras_takes_it(array: np.ndarray) -> np.ndarray:
    return array.astype(object) if array.dtype.kind == "U" else array


def _of_dataset(data: tf.data.Dataset, labels_per_class: int, seed: int) -> FewLabels:
    spec = labels_of(data.element_spec)
    check_dense(data.element_spec)
    check_finite(data)
    if not isinstance(spec, tf.TensorSpec):
        raise _structure(spec)
    batched = spec.shape.rank != 0
    options = tf.data.Options()
    options.deterministic = True
    data = data.with_options(options)
    fixed = all(
        each.shape.is_fully_defined() for each in keras.tree.flatten(data.element_spec)
    )
    labels, batch_size = _read_twice(
        data if batched else data.batch(READ_AT_ONCE if fixed else 1)
    )
    chosen = _choose(labels, labels_per_class, seed)

    def part(of: np.ndarray) -> tf.data.Dataset:
        flat = data.unbatch() if batched else data
        rows = flat.enumerate().filter(lambda index, _: tf.gather(of, index))
        known = tf.data.experimental.assert_cardinality(np.count_nonzero(of))
        return rows.map(lambda _, example: example).apply(known)

    labeled = part(chosen).cache()
    unlabeled = part(~chosen).map(lambda *example: example[0])
    if batched:
        labeled, unlabeled = labeled.batch(batch_size), unlabeled.batch(batch_size)
    return FewLabels(labeled, unlabeled)


def _read_twice(data: tf.data.Dataset) -> tuple[np.ndarray, int]:
    """Return the labels and the size of the first batch, if two passes are equal."""
    labels, digests = [], []
    # With a global seed, two iterators draw the same random numbers. `repeat` does not.
    for index, batch in data.enumerate().repeat(2).as_numpy_iterator():
        if index == 0:
            digests.append(RowDigest())
        _check_rows(batch)
        digests[-1].update(batch)
        if len(digests) == 1:
            labels.append(batch[1])
    if not labels:
        raise ValueError("`data` is empty. Pass at least one example.")
    if len({digest.value() for digest in digests}) != 1 or len(digests) == 1:
        raise ValueError(
            "Two passes over `data` differ, so examples cannot be identified by their "
            "index. The dataset shuffles or augments at random, or allows only one "
            "pass. Shuffle and augment the datasets that few_labels returns instead."
        )
    return np.concatenate(labels), len(labels[0])


def _check_rows(batch: tuple) -> None:
    shapes = [np.shape(each) for each in keras.tree.flatten(batch)]
    if () in shapes or len({shape[0] for shape in shapes}) != 1:
        raise ValueError(
            f"`data` is not batched, and its y are not scalars. Its elements have the "
            f"shapes {shapes}. Call data.batch(32)."
        )


def _choose(labels: Any, labels_per_class: int, seed: int) -> np.ndarray:
    classes = _classes(labels)
    names, counts = np.unique(classes, return_counts=True)
    few = [
        f"{name!r} has {count}"
        for name, count in zip(names.tolist(), counts, strict=True)
        if count < labels_per_class
    ]
    if few:
        raise ValueError(
            f"labels_per_class={labels_per_class}, but {len(few)} of {len(names)} "
            f"classes have fewer examples: class {listed(few)}. Pass at most "
            f"{counts.min()}, or leave these classes out."
        )
    return choose_per_class(classes, labels_per_class, seed)


def _classes(labels: Any) -> np.ndarray:
    """Return the class of each example, as a number or a string."""
    if not isinstance(labels, np.ndarray):
        raise _structure(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind in "OSU" and labels.ndim == 1:
        return labels
    if labels.ndim == 2:
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all()):
            raise ValueError(
                f"The labels have shape {labels.shape} and are not one-hot, so an "
                "example has more or less than one class. Pass y with exactly one "
                "class for each example, such as the most important class."
            )
        return labels.argmax(1)
    labels = whole_numbers(labels, "0 or above")
    if (labels < 0).any():
        raise ValueError(
            f"{np.count_nonzero(labels < 0)} of {labels.size} labels are below 0: "
            f"{listed(np.unique(labels[labels < 0]))}. Many datasets mark examples "
            "without a label in this way. Remove these examples first."
        )
    return labels


def _structure(labels: Any) -> TypeError:
    return TypeError(
        f"y is a {type(labels).__name__} of several labels, so an example has more "
        "than one class. Pass one of the labels as y."
    )
