"""The diagonal of the Fisher information, from gradients of single examples."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer._arguments import one_of
from keras_transfer._arguments import whole_number
from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import BATCH_SIZE
from keras_transfer.data.examples import batches_of
from keras_transfer.data.examples import check_batched
from keras_transfer.data.examples import count_rows
from keras_transfer.data.examples import DATASET
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import rows_of
from keras_transfer.losses.compiled_loss import check_exclusive
from keras_transfer.losses.compiled_loss import says_logits

EXPECTED = "expected"
SAMPLED = "sampled"
# One backward pass for each class and example.
MOST_CLASSES = 20
TINY = 1e-7


def diagonal_fisher(
    model: keras.Model,
    data: Any,
    *,
    classes: str = EXPECTED,
    from_logits: bool | None = None,
    weights: Sequence[keras.Variable] | None = None,
    seed: int = 0,
) -> list[np.ndarray]:
    """Return the diagonal of a classifier's Fisher information, for each weight.

    The Fisher information tells how much a change of a weight changes the predictions:

    `F = 1/N sum_i sum_c p(c|x_i) (d log p(c|x_i) / d w)^2`

    `p(c|x_i)` is the model's own probability of class `c` for example `i` of `N`. The
    labels are not used: with them, the mean of squared gradients (the empirical Fisher)
    is near 0 for examples that the model has learned. Gradients are taken of one
    example at a time, in inference mode, because the square of a batch's mean gradient
    is another number. The data is read once, batch by batch.

    Args:
        model: A classifier with one output `(batch, classes)`, or `(batch, 1)` for two
            classes.
        data: Examples of the task: x or `(x, y)` as arrays, or a batched
            `tf.data.Dataset` or `keras.utils.PyDataset` of these. y is only used to
            check that the labels are in the range of the model's classes.
        classes: `"expected"` takes the sum over all classes, which needs a backward
            pass for each class, and at most 20 classes. `"sampled"` draws one class for
            each example, which is as exact with more examples. Defaults to
            `"expected"`.
        from_logits: Bool, whether the outputs are logits. Defaults to None, which takes
            the setting of the compiled loss.
        weights: List of variables of the model. Defaults to None: the trainable
            variables.
        seed: Int of 0 or more, the seed of sampled classes. Defaults to 0.

    Returns:
        A list of float32 arrays, each with the shape of its variable.

    Raises:
        TypeError: If the data can be read only once or is of an unknown kind.
        ValueError: If the data is empty, infinite or not batched, if a label is out of
            range, if the model is not a classifier with one output, or if the result is
            not finite.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        x = np.random.rand(16, 3)
        kernel, bias = kt.regularizers.diagonal_fisher(model, x, from_logits=True)
        assert kernel.shape == (3, 2) and (kernel >= 0).all()
        ```

    Reference:
        Kirkpatrick et al. 2017, Overcoming Catastrophic Forgetting in Neural Networks,
        arXiv:1612.00796. Kunstner, Balles and Hennig 2019, Limitations of the Empirical
        Fisher Approximation, arXiv:1905.12558.
    """
    one_of("classes", classes, (EXPECTED, SAMPLED))
    random = np.random.default_rng(whole_number("seed", seed, 0))
    if from_logits is None:
        from_logits = says_logits(model)
    kind = kind_of(data, x_alone=True)
    if kind == DATASET:
        check_batched(data, model=model)
    variables = list(model.trainable_variables if weights is None else weights)
    function = _log_likelihoods(model, classes, from_logits)
    squares = _keras.squared_gradients(model, variables, function)
    sums = [np.zeros(tuple(x.shape), "float64") for x in variables]
    count = 0
    for x, y in _batches(data, kind):
        x = _preprocessed(model, x)
        rows = len(keras.tree.flatten(x)[0])
        if not count:
            num_classes = _num_classes(model, x, classes)
        _check_labels(model, y, num_classes)
        for total, found in zip(sums, squares(x, random.random(rows)), strict=True):
            total += ops.convert_to_numpy(found)
        count += rows
    if not count:
        raise ValueError("`data` is empty. Pass at least one example of the task.")
    wrong = [v.path for v, x in zip(variables, sums) if not np.isfinite(x).all()]
    if wrong:
        raise ValueError(
            f"The Fisher information of {len(wrong)} weights is not finite, such as "
            f"{wrong[0]!r}. An input, an output or a gradient was NaN or infinite. "
            "Check the data and the weights. In float16, a gradient can overflow: use "
            "mixed_bfloat16 or float32."
        )
    return [np.float32(total / count) for total in sums]


def _log_likelihoods(
    model: keras.Model, classes: str, from_logits: bool
) -> Callable[[Any, Any], tuple]:
    """Return a function from one example's output to values and their weights."""

    def function(outputs: Any, draw: Any) -> tuple:
        row = ops.cast(outputs, "float32")[0]
        if row.shape[-1] == 1:
            logit = row[0]
            if not from_logits:
                chance = ops.clip(logit, TINY, 1 - TINY)
                logit = ops.log(chance) - ops.log(1 - chance)
            logs = -ops.softplus(ops.stack([logit, -logit]))
        elif from_logits:
            logs = ops.log_softmax(row)
        else:
            logs = ops.log(ops.maximum(row, TINY))
        chances = ops.stop_gradient(ops.exp(logs))
        if classes == EXPECTED:
            return logs, chances
        below = ops.cast(ops.cumsum(chances) < draw, "int32")
        chosen = ops.minimum(ops.sum(below), logs.shape[-1] - 1)
        return ops.take(logs, ops.reshape(chosen, (1,))), ops.ones((1,))

    return function


def _batches(data: Any, kind: str) -> Iterator[tuple[Any, Any]]:
    if kind == ARRAYS:
        x, y = _parts(data)
        for start in range(0, count_rows(x), BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            yield rows_of(x, part), None if y is None else np.asarray(y)[part]
        return
    for element in batches_of(data):
        yield _parts(element)


def _parts(element: Any) -> tuple[Any, Any]:
    if not isinstance(element, tuple):
        return element, None
    return element[0], element[1] if len(element) > 1 else None


def _preprocessed(model: keras.Model, x: Any) -> Any:
    """Return the inputs of the model. A Task of keras-hub takes texts in `fit`."""
    preprocessor = getattr(model, "preprocessor", None)
    return x if preprocessor is None else preprocessor(x)


def _num_classes(model: keras.Model, x: Any, classes: str) -> int:
    shapes = model.compute_output_shape(
        keras.tree.map_structure(lambda each: tuple(each.shape), x)
    )
    shape = shapes if isinstance(shapes, tuple) else None
    if shape is None or len(shape) != 2 or not isinstance(shape[-1], int):
        raise ValueError(
            f"The output of {model.name!r} has the shape {shapes}, but the Fisher "
            "information needs one row of classes for each example. Pass a model with "
            "the output of the task alone."
        )
    if model.compiled:
        check_exclusive(model, keras.KerasTensor(shape))
    if classes == EXPECTED and shape[-1] > MOST_CLASSES:
        raise ValueError(
            f"{model.name!r} has {shape[-1]} classes, and classes='expected' needs a "
            f"backward pass for each class, for at most {MOST_CLASSES}. Pass "
            "classes='sampled'."
        )
    return max(shape[-1], 2)


def _check_labels(model: keras.Model, y: Any, num_classes: int) -> None:
    if y is None or keras.tree.is_nested(y):
        return
    labels, top = np.asarray(y), num_classes - 1
    if labels.dtype.kind not in "iu" or labels.size != math.prod(labels.shape[:1]):
        return
    wrong = labels[(labels < 0) | (labels > top)]
    if wrong.size:
        raise ValueError(
            f"{wrong.size} labels are outside 0 to {top}, such as {wrong.flat[0]}, but "
            f"{model.name!r} has {num_classes} classes. Pass the data of the task "
            "that the model has learned."
        )
