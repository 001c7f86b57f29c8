"""TaskRows: the labels and weights of each task in a batch, and checks of the data."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.adapters.switching import active
from keras_transfer.adapters.switching import attached
from keras_transfer.data.task_mixture import labels_of_tasks
from keras_transfer.models.task_losses import check_values


class TaskRows:
    """The labels and weights of the rows of a batch, for each task with labels.

    Args:
        model: A `MultiTask`.
        y: Dict from names of tasks to labels.
        sample_weight: Dict from names to a weight for each row, or the weights of the
            rows for all tasks, or None.

    Attributes:
        labels: Dict from names to labels, in the order of the heads.
        weights: Dict from names to float32 weights.
        totals: Dict from names to the sums of the weights over all replicas.

    Raises:
        ValueError: If the labels are not a dict by the names of the heads, or if the
            weights have other names.
    """

    def __init__(self, model: keras.Model, y: Any, sample_weight: Any):
        _check_names(model, y)
        self.labels = {name: y[name] for name in model.heads if name in y}
        if not isinstance(sample_weight, Mapping):
            sample_weight = dict.fromkeys(self.labels, sample_weight)
        if set(sample_weight) != set(self.labels):
            raise ValueError(
                f"The sample weights have the names {sorted(sample_weight)}, but the "
                f"labels have {sorted(self.labels)}. Pass weights of the same names."
            )
        self.weights = {
            name: _weights(labels, sample_weight[name])
            for name, labels in self.labels.items()
        }
        totals = ops.stack([ops.sum(each) for each in self.weights.values()])
        if _keras.replicas_in_step() > 1:
            totals = _keras.sum_over_replicas(totals)
        self.totals = {name: totals[i] for i, name in enumerate(self.labels)}


def check_labeled(model: keras.Model, y: Any) -> None:
    """Check that all heads that train have labels.

    Args:
        model: A `MultiTask`.
        y: Dict from names of tasks to labels, or to anything else.

    Raises:
        ValueError: If the labels are not a dict by the names of the heads, or if a
            head has none, unless the labels are of one task with an adapter.
    """
    _check_names(model, y)
    missing = sorted(set(model.heads) - set(y))
    if missing and not (len(y) == 1 and set(y) <= set(attached(model))):
        raise ValueError(
            f"The heads {missing} of {model.name!r} have no labels, so they would not "
            "train. Pass data of all tasks, or attach an adapter with the name of the "
            "task to train one task alone."
        )


def check_data(model: keras.Model, x: Any, y: Any, validation: Any = None) -> None:
    """Check the labels that are passed to `fit`, as far as they can be read.

    Args:
        model: A compiled `MultiTask`.
        x: Inputs, or a dataset.
        y: Labels, or None with a dataset.
        validation: The argument `validation_data` of `fit`.

    Raises:
        ValueError: As in `check_labeled`, or if labels do not fit their heads, or the
            adapter in use is that of another task.
    """
    if not model.compiled:
        return  # Keras says so
    labels = _labels(x, y)
    if labels is not None:
        check_labeled(model, labels)
        _check_adapter(model, labels)
        _check_values(model, labels)
    if validation is not None:
        pair = validation if isinstance(validation, list | tuple) else [validation]
        labels = _labels(*[*pair, None][:2])
        if labels is not None:
            _check_names(model, labels)
            _check_values(model, labels)


def _labels(x: Any, y: Any) -> Any:
    """Return labels by task: arrays if they are known, or else specs, or None."""
    if y is not None:
        return y
    spec = getattr(x, "element_spec", None)
    if isinstance(spec, tuple) and len(spec) > 1:
        return labels_of_tasks(x) or spec[1]
    return None


def _check_values(model: keras.Model, labels: Mapping[str, Any]) -> None:
    for name, each in labels.items():
        if hasattr(each, "__array__") or isinstance(each, list):
            array = np.asarray(each)
            check_values(name, model.loss[name], array, model.output[name])


def _check_adapter(model: keras.Model, labels: Iterable[str]) -> None:
    """Check that the adapter of the tasks of the data is in use."""
    of_tasks = [name for name in attached(model) if name in model.heads]
    used = list(active(model))
    if of_tasks and (len(used) != 1 or set(labels) != set(used)):
        raise ValueError(
            f"The model has the adapters {of_tasks}, of which {used} is in use, but "
            f"the labels are of {sorted(labels)}. Call kt.adapters.use(model, name), "
            "and pass the labels of the same task alone."
        )


def _check_names(model: keras.Model, y: Any) -> None:
    names = list(model.heads)
    if not isinstance(y, Mapping) or not y:
        raise ValueError(
            f"The labels are {type(y).__name__}, but a MultiTask needs a dict by the "
            f"names of the heads, {names}. kt.data.task_mixture makes such data."
        )
    unknown = sorted(set(y) - set(names))
    if unknown:
        raise ValueError(
            f"The data has the tasks {unknown}, for which there is no head. The heads "
            f"are {names}. Add a head, or leave out the task."
        )


def _weights(labels: Any, given: Any) -> Any:
    if given is None:
        return ops.ones((ops.shape(labels)[0],), "float32")
    return ops.reshape(ops.cast(given, "float32"), (-1,))
