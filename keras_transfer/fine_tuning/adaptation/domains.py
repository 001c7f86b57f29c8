"""The data of an adaptation: labeled source, held-out source, and target."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.data import domain_checks
from keras_transfer.data.domains import domain_dataset
from keras_transfer.data.epochs import Epochs
from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import batches_of
from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import map_arrays
from keras_transfer.data.finite_numbers import check_numbers
from keras_transfer.data.short_texts import short_texts
from keras_transfer.data.tsv import Texts
from keras_transfer.fine_tuning.comparison.subsets import as_arrays
from keras_transfer.fine_tuning.inputs import checked_inputs
from keras_transfer.fine_tuning.inputs import output_of
from keras_transfer.fine_tuning.inputs import without_none
from keras_transfer.fine_tuning.pilot.held_out import Fold
from keras_transfer.fine_tuning.pilot.held_out import folds
from keras_transfer.fine_tuning.pilot.held_out import READ_AT_ONCE
from keras_transfer.fine_tuning.pilot.held_out import take
from keras_transfer.losses.compiled_loss import BINARY
from keras_transfer.losses.compiled_loss import read_loss

LEAST_SOURCE = 40  # examples, as for the pilot of fine_tune


@dataclasses.dataclass(frozen=True)
class Domains:
    """The two domains as arrays that the model itself takes.

    Args:
        source: `(x, y)` or `(x, y, sample_weight)`, on which candidates train.
        held_out: The same for a quarter of the source, on which no candidate trains.
        target: The x of the target.
        class_names: The names of the classes, or None.
    """

    source: tuple
    held_out: tuple
    target: Any
    class_names: tuple[str, ...] | None

    @property
    def held_out_labels(self) -> np.ndarray:
        """The class numbers of the held-out source."""
        return class_numbers(self.held_out[1])

    @property
    def num_target(self) -> int:
        """The number of examples of the target."""
        return count_rows(self.target, "target")

    def dataset(self, batch_size: int, seed: int) -> Any:
        """Return the batches of both domains for `fit`."""
        least = min(count_rows(self.source, "source"), self.num_target, batch_size)
        return domain_dataset(self.source, self.target, least, seed=seed)


def read_domains(model: keras.Model, source: Any, target: Any, seed: int) -> Domains:
    """Check and read the data of both domains.

    Datasets are read once. Texts for a Task are preprocessed. The held-out quarter of
    the source has each class in its share.

    Raises:
        TypeError: If the type of the data is unknown.
        ValueError: If the data do not fit the model or each other, if features
            are NaN, if the source has only one class, or if the target has labels.
    """
    _check_columns(source, target)
    unlabeled = _target_arrays(target)
    inputs = checked_inputs(model, without_none(source), None, None)
    said = read_loss(_keras.compile_arguments(model)["loss"])
    if inputs.made or said.is_classifier is not True:
        raise ValueError(
            f"The model {model.name!r} is not compiled with a loss for classes, but "
            "kt.adapt adapts classifiers. Compile it with a crossentropy."
        )
    if said.labels == BINARY and output_of(model)[-1] != 1:
        raise ValueError(
            f"The model {model.name!r} has {output_of(model)[-1]} outputs with a "
            "binary crossentropy, so each example can have several classes, but "
            "kt.adapt needs one class for each. Compile it with a categorical "
            "crossentropy if it has one."
        )
    labeled = as_arrays(inputs.data)
    labeled, unlabeled = _float32(labeled), _float32(unlabeled)
    streams = domain_checks.labeled(labeled), domain_checks.unlabeled(unlabeled)
    domain_checks.check_same(*streams, batched=False)
    for name, data in (("source", labeled), ("target", (unlabeled,))):
        try:
            check_numbers(model, data)
        except ValueError as error:
            raise ValueError(f"In `{name}`: {error}") from error
    x, unlabeled = _preprocessed(model, labeled[0], unlabeled)
    labeled = (x, *labeled[1:])
    fold = _fold(class_numbers(labeled[1]), seed)
    return Domains(
        take(labeled, fold.train),
        take(labeled, fold.held_out),
        unlabeled,
        inputs.class_names,
    )


def _fold(classes: np.ndarray, seed: int) -> Fold:
    """Return the rows of a quarter of the source to hold out, with all classes."""
    if len(classes) < LEAST_SOURCE:
        raise ValueError(
            f"`source` has {len(classes)} examples, but kt.adapt needs at least "
            f"{LEAST_SOURCE}, of which it holds out a quarter to see harm. Pass more "
            "examples, or train a method of kt.models yourself."
        )
    found = folds(classes, len(classes), seed)
    held = [len(np.unique(classes[fold.held_out])) for fold in found]
    if max(held) < 2:
        counts = dict(zip(*np.unique(classes, return_counts=True), strict=True))
        raise ValueError(
            f"`source` has too few examples of all classes but one: {counts}. A "
            "quarter that is held out needs two classes. Pass more of the others."
        )
    return found[int(np.argmax(held))]


def class_numbers(labels: np.ndarray) -> np.ndarray:
    """Return the class number of each example, also from one-hot rows."""
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return labels.argmax(axis=1)
    return labels.reshape(-1).astype("int64")


def _float32(arrays: Any) -> Any:
    """Return arrays with float32 instead of float64, as Keras makes them in `fit`."""
    return keras.tree.map_structure(
        lambda x: x.astype("float32") if x.dtype == "float64" else x, arrays
    )


def _check_columns(source: Any, target: Any) -> None:
    """Check that tables have the same columns in the same order."""
    x = source[0] if isinstance(source, tuple) and source else source
    columns, others = (getattr(each, "columns", None) for each in (x, target))
    if columns is None or others is None or list(columns) == list(others):
        return
    raise ValueError(
        f"The columns of `source` are {list(columns)}, but those of `target` are "
        f"{list(others)}. The model reads them by position. Pass "
        "target[source_table.columns]."
    )


def _check_target(element: Any) -> None:
    """Check that an element of the target is x alone."""
    if isinstance(element, Texts) or isinstance(element, tuple) and len(element) > 1:
        raise ValueError(
            "`target` is a tuple, so it seems to have labels, which would leak into "
            "an adaptation that must work without them. Pass x alone."
        )


def _target_arrays(target: Any) -> Any:
    if kind_of(target, "target", x_alone=True) == ARRAYS:
        _check_target(target)
        arrays = map_arrays(np.asarray, _alone(target))
        count_rows(arrays, "target")
        return arrays
    parts = []
    for element in batches_of(target, "target"):
        _check_target(element)
        parts.append(map_arrays(np.asarray, _alone(element)))
    return keras.tree.map_structure(lambda *each: np.concatenate(each), *parts)


def _alone(element: Any) -> Any:
    return element[0] if isinstance(element, tuple) else element


def _preprocessed(model: keras.Model, source: Any, target: Any) -> tuple[Any, Any]:
    """Return the inputs that the model itself takes, of one length for all texts."""
    if getattr(model, "preprocessor", None) is None:
        return source, target
    epochs = [Epochs((x,), READ_AT_ONCE, None) for x in (source, target)]
    short = short_texts(model, *epochs)
    run = model.preprocessor if short is None else short.preprocess
    results = []
    for each in epochs:
        parts = [
            keras.tree.map_structure(np.asarray, run(batch[0]))
            for batch in each.in_order
        ]
        results.append(
            keras.tree.map_structure(lambda *rows: np.concatenate(rows), *parts)
        )
    return results[0], results[1]
