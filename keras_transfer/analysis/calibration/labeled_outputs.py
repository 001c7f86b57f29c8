"""Read the labels of data, and what a classifier says about it."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_transfer.analysis.calibration.kinds_of_outputs import are_logits
from keras_transfer.analysis.calibration.kinds_of_outputs import check_finite_outputs
from keras_transfer.analysis.calibration.kinds_of_outputs import check_one_output
from keras_transfer.analysis.calibration.kinds_of_outputs import check_probabilities
from keras_transfer.analysis.report.predictions import predictions
from keras_transfer.analysis.report.predictions import unchanged
from keras_transfer.data.class_names import class_names_of
from keras_transfer.data.labels import listed
from keras_transfer.data.labels import whole_numbers
from keras_transfer.data.named_labels import number_names

TINY = 1e-12  # as in keras_transfer.layers.calibration_layer


class LabeledOutputs(NamedTuple):
    """Labels, and the outputs for the same examples.

    Args:
        labels: int64 `(examples,)`.
        outputs: float64 `(examples, classes)`, or `(examples, 1)` for two classes.
        from_logits: Whether the outputs are logits; if False, probabilities.
        names: Names of the classes.
    """

    labels: np.ndarray
    outputs: np.ndarray
    from_logits: bool
    names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.names)

    @property
    def logits(self) -> np.ndarray:
        """The outputs as logits, with the columns of the outputs."""
        if self.from_logits:
            return self.outputs
        logs = np.log(np.maximum(self.outputs, TINY))
        if self.outputs.shape[1] == 1:
            return logs - np.log(np.maximum(1 - self.outputs, TINY))
        return logs

    @property
    def probabilities(self) -> np.ndarray:
        """The probability of each class, `(examples, classes)`."""
        return as_probabilities(self.outputs, self.from_logits)

    def check_two_classes(self, least: int = 1) -> None:
        """Check that there are several classes, and enough examples.

        Raises:
            ValueError: If all labels are of one class, or there are too few examples.
        """
        if len(self.labels) < least:
            raise ValueError(
                f"`data` has {len(self.labels)} examples, but at least {least} are "
                "necessary. Pass more held-out examples."
            )
        found = np.unique(self.labels)
        if len(found) == 1:
            raise ValueError(
                f"All {len(self.labels)} labels are of one class, "
                f"{self.names[found[0]]!r}. Pass examples of several classes. Check "
                "whether `data` is a part of data that is sorted by class."
            )


def as_probabilities(outputs: np.ndarray, from_logits: bool) -> np.ndarray:
    """Return outputs as the probabilities of all classes, in float64."""
    from scipy.special import expit
    from scipy.special import softmax

    outputs = outputs.astype("float64")
    if outputs.shape[1] == 1:
        second = expit(outputs) if from_logits else outputs
        first = expit(-outputs) if from_logits else 1 - outputs
        return np.concatenate([first, second], axis=1)
    return softmax(outputs, axis=1) if from_logits else outputs


def read_outputs(
    model: keras.Model,
    data: Any,
    *,
    from_logits: bool | None = None,
    class_names: Sequence[str] | None = None,
) -> LabeledOutputs:
    """Return labels and outputs of a classifier with one output.

    Args:
        model: A built Keras model.
        data: Arrays `(x, y)`, a batched dataset or a PyDataset.
        from_logits: Whether the outputs are logits. Defaults to None: as the compiled
            loss says, or else the last layer and the outputs.
        class_names: Names of the classes. Defaults to None: the names of the data or of
            the model, or else numbers.

    Raises:
        TypeError: If `model` is not a model, or `data` is of an unknown kind.
        ValueError: If the model has several outputs or gives no class for each example,
            an output is NaN, probabilities do not sum to 1, or labels do not fit.
    """
    check_one_output(model)
    if isinstance(data, tuple) and len(data) > 2:
        raise ValueError(
            f"`data` is a tuple of {len(data)}, but sample weights have no effect "
            "here. Pass (x, y)."
        )
    labels, outputs = [], []
    with unchanged(model):
        for batch in predictions(model, data):
            if "" not in batch:
                check_one_output(model, [*batch])
            if batch[""].weights is not None:
                raise ValueError(
                    "`data` has sample weights, which have no effect here. Leave them "
                    "out: data.map(lambda x, y, weight: (x, y))."
                )
            labels.append(batch[""].labels)
            outputs.append(batch[""].outputs)
    known = getattr(data, "class_names", None) or class_names_of(model)
    outputs = _columns(np.concatenate(outputs), model)
    check_finite_outputs(outputs)
    logits = are_logits(model, outputs, from_logits)
    return _labeled(np.concatenate(labels), outputs, logits, class_names, known)


def of_probabilities(
    probabilities: Any, labels: Any, class_names: Sequence[str] | None = None
) -> LabeledOutputs:
    """Return probabilities of any classifier with their labels.

    Raises:
        TypeError: If the labels are not an array.
        ValueError: If the probabilities do not sum to 1, or the labels do not fit.
    """
    try:
        array = np.asarray(probabilities, "float64")
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"The first argument is a {type(probabilities).__name__}. Pass a Keras "
            "model, or an array of probabilities, (examples, classes)."
        ) from error
    if isinstance(labels, tuple):
        raise TypeError(
            f"`data` is a tuple of {len(labels)}, but with probabilities it must be "
            "their labels, one array. Pass a model to compute outputs from (x, y)."
        )
    array = _columns(array, None)
    check_finite_outputs(array)
    check_probabilities(array)
    return _labeled(np.asarray(labels), array, False, class_names, None)


def _columns(outputs: np.ndarray, model: keras.Model | None) -> np.ndarray:
    outputs = outputs[:, None] if outputs.ndim == 1 else outputs
    if outputs.ndim == 2 and len(outputs):
        return outputs.astype("float64")
    what = "The probabilities" if model is None else f"The outputs of {model.name!r}"
    raise ValueError(
        f"{what} have the shape {outputs.shape}, but each example needs one row of "
        "classes: (examples, classes), or (examples, 1) for two classes. Models with "
        "classes for each token or pixel are not supported."
    )


def _labeled(
    labels: np.ndarray,
    outputs: np.ndarray,
    from_logits: bool,
    given: Sequence[str] | None,
    known: Sequence[str] | None,
) -> LabeledOutputs:
    size = max(2, outputs.shape[1])
    if given is None:
        fit = known is not None and len(known) == size
        names = tuple(map(str, known if fit else range(size)))
    else:
        several = isinstance(given, Iterable) and not isinstance(given, str)
        names = tuple(map(str, given)) if several else ()
        if len(names) != size or len(set(names)) < size:
            raise ValueError(
                f"class_names is {given!r}, but there are {size} classes. Pass the "
                "name of each class once, in the order of the outputs."
            )
    numbers = _numbers(labels, names)
    if len(numbers) != len(outputs):
        raise ValueError(
            f"There are {len(numbers)} labels for {len(outputs)} rows of outputs. Pass "
            "one label for each row."
        )
    return LabeledOutputs(numbers, outputs, from_logits, names)


def _numbers(labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return labels as class numbers, from names, numbers or one-hot rows."""
    size = len(names)
    if labels.dtype.kind in "OSUT":
        return number_names(labels, names)
    if labels.ndim == 2 and labels.shape[1] == size and size > 1:
        rows = np.isin(labels, (0, 1)).all(1) & (labels.sum(1) == 1)
        if not rows.all():
            raise ValueError(
                f"{(~rows).sum()} of {len(labels)} rows of labels are not one-hot. "
                "Pass one class for each example, not several and not shares."
            )
        return labels.argmax(1).astype("int64")
    numbers = whole_numbers(labels, f"0 to {size - 1}")
    outside = numbers[(numbers < 0) | (numbers >= size)]
    if outside.size:
        raise ValueError(
            f"{outside.size} of {numbers.size} labels are outside 0 to {size - 1}: "
            f"{listed(np.unique(outside))}. There are {size} classes. Number them from "
            "0, in the order of the outputs."
        )
    return numbers
