"""A new linear head, set to the solution of scikit-learn on cached features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.in_place.adapted_layer import plain_of
from keras_transfer.adapters.switching import active
from keras_transfer.analysis.linear_solutions import Solution
from keras_transfer.analysis.linear_solutions import solve_binary
from keras_transfer.analysis.linear_solutions import solve_classes
from keras_transfer.analysis.linear_solutions import solve_numbers
from keras_transfer.losses.compiled_loss import CompiledLoss
from keras_transfer.losses.compiled_loss import read_loss

# With more examples Adam gets as far in the same time.
MOST_EXAMPLES = 20_000
CHECKED = 64  # rows of random features on which the form of the head is checked
# Features that vary less would need weights so large that the outputs jump as soon as
# the backbone trains.
LEAST_SPREAD = 1e-4
MEAN_SQUARED_ERROR = ("mean_squared_error", "MeanSquaredError")


def solve_head(
    head: keras.Model,
    arrays: tuple,
    loss: Any,
    class_weight: Mapping[int, float] | None = None,
) -> str | None:
    """Set a linear head to the solution of scikit-learn, and return what it is.

    Classes are solved by logistic regression, numbers by ridge regression. Features are
    standardized, and the standardization is folded into the weights. The solution
    depends on no learning rate and on no number of epochs.

    Args:
        head: A model from features `(batch, features)` to outputs `(batch, outputs)`.
        arrays: Tuple `(features, y)` or `(features, y, sample_weight)`.
        loss: The compiled loss.
        class_weight: Dict from class number to weight. Defaults to None.

    Returns:
        What the solution is. None, and nothing has changed, if the head is not linear
        in its features, or if its loss or labels have no such solution.
    """
    dense, features = _only_dense(head), arrays[0]
    weights = arrays[2] if len(arrays) == 3 else None
    if dense is None or keras.tree.is_nested(features) or np.ndim(features) != 2:
        return None
    if len(features) > MOST_EXAMPLES or weights is not None and np.ndim(weights) != 1:
        return None
    features, labels = np.asarray(features, "float64"), np.asarray(arrays[1])
    if weights is not None:
        # scikit-learn fails where all examples of a fold have weight 0.
        rows = np.flatnonzero(weights)
        features, labels, weights = features[rows], labels[rows], weights[rows]
        if (weights < 0).any():
            return None
    if len(features) < 2 or not np.isfinite(features).all():
        return None
    if features.std(axis=0).max() < LEAST_SPREAD:
        return None
    solution = _solve(
        features,
        labels,
        weights,
        read_loss(loss),
        _form(head, dense),
        dense.units,
        class_weight,
    )
    if solution is None or solution.bias.shape != (dense.units,):
        return None
    dense.kernel.assign(solution.kernel)
    dense.bias.assign(solution.bias)
    return solution.text


class _Linear(NamedTuple):
    """The only layer of a head that has weights, and the weights that train."""

    kernel: keras.Variable
    bias: keras.Variable
    units: int


def _only_dense(head: keras.Model) -> _Linear | None:
    """Return the layer of `head` that has weights, if it is a single plain Dense.

    With an adapter, these are the weights of the adapter's own copy.
    """
    layers = [
        layer
        for layer in _keras.flat_layers(head)
        if _keras.own_weights(layer) and not isinstance(layer, Part)
    ]
    if len(layers) != 1 or plain_of(layers[0]) is not keras.layers.Dense:
        return None
    (dense,) = layers
    constrained = dense.kernel_constraint or dense.bias_constraint
    trains = len(dense.trainable_variables) == 2
    if not dense.use_bias or not trains or constrained:
        return None
    gates = active(head)
    parts = [part for _, part in all_parts(head) if part.name in gates]
    if not parts:
        return _Linear(dense.kernel, dense.bias, dense.units)
    if len(parts) > 1 or not parts[0].replaces or gates[parts[0].name] != 1:
        return None
    weights = parts[0].named_weights
    if set(weights) != {"kernel", "bias"}:
        return None
    return _Linear(weights["kernel"], weights["bias"], dense.units)


def _form(head: keras.Model, dense: _Linear) -> str | None:
    """Return what the outputs are of Dense's: "linear", "softmax" or "sigmoid"."""
    # On outputs close to 0, a tanh looks linear and a softmax looks like a sigmoid.
    random, kernel = np.random.default_rng(0), _keras.value(dense.kernel)
    features = random.normal(size=(CHECKED, len(kernel))).astype("float32")
    weights = random.normal(0, 2 / np.sqrt(len(kernel)), kernel.shape)
    try:
        dense.kernel.assign(weights)
        outputs = keras.ops.convert_to_numpy(head(features, training=False))
    finally:
        dense.kernel.assign(kernel)
    linear = features @ weights + _keras.value(dense.bias)
    outputs, linear = outputs.astype("float32"), linear.astype("float32")
    forms = {
        "linear": linear,
        "sigmoid": keras.ops.convert_to_numpy(keras.ops.sigmoid(linear)),
    }
    if dense.units > 1:  # or Keras warns
        forms["softmax"] = keras.ops.convert_to_numpy(keras.ops.softmax(linear))
    for form, expected in forms.items():
        same = outputs.shape == expected.shape
        # With room for half precision.
        if same and np.allclose(outputs, expected, rtol=0.02, atol=0.02):
            return form
    return None


def _solve(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None,
    loss: CompiledLoss,
    form: str | None,
    units: int,
    class_weight: Mapping[int, float] | None,
) -> Solution | None:
    """Return the solution of the task that loss, labels and outputs make."""
    columns = labels.reshape(len(labels), -1)
    if loss.name in MEAN_SQUARED_ERROR and form == "linear":
        return solve_numbers(features, columns, weights)
    takes_logits = form == "linear"
    if form is None or not loss.is_classifier or loss.from_logits is not takes_logits:
        return None
    if loss.is_binary:
        if not np.isin(columns, (0, 1)).all():
            return None
        weights = _weighed(weights, columns[:, 0], class_weight)
        return solve_binary(features, columns, weights)
    if columns.shape[1] == 1:
        numbers = columns[:, 0].astype("int64")
        if form == "sigmoid" or (numbers == loss.ignore_class).any():
            return None
    elif (np.isin(columns, (0, 1)).all(axis=1) & (columns.sum(axis=1) == 1)).all():
        numbers = columns.argmax(axis=1)
    else:
        return None  # shares of several classes
    weights = _weighed(weights, numbers, class_weight)
    return solve_classes(features, numbers, weights, units)


def _weighed(
    weights: np.ndarray | None,
    numbers: np.ndarray,
    class_weight: Mapping[int, float] | None,
) -> np.ndarray | None:
    if class_weight is None:
        return weights
    by_class = np.array([class_weight[int(number)] for number in numbers])
    return by_class if weights is None else by_class * weights
