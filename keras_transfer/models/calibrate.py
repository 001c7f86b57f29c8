"""calibrate: a classifier whose probabilities are right on held-out data."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._arguments import one_of
from keras_transfer._arguments import whole_number
from keras_transfer.analysis.calibration.calibration import BETTER
from keras_transfer.analysis.calibration.calibration import UNCLEAR
from keras_transfer.analysis.calibration.calibration import WORSE
from keras_transfer.analysis.calibration.calibration_error import BINS
from keras_transfer.analysis.calibration.calibration_error import measured
from keras_transfer.analysis.calibration.kinds_of_outputs import check_one_output
from keras_transfer.analysis.calibration.labeled_outputs import as_probabilities
from keras_transfer.analysis.calibration.labeled_outputs import LabeledOutputs
from keras_transfer.analysis.calibration.labeled_outputs import read_outputs
from keras_transfer.analysis.calibration.measures import brier_scores
from keras_transfer.data.class_names import class_names_of
from keras_transfer.data.class_names import remember_class_names
from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import batches_of
from keras_transfer.data.examples import kind_of
from keras_transfer.data.examples import rows_of
from keras_transfer.layers.calibration_layer import CalibrationLayer
from keras_transfer.models.calibrated_classifier import CalibratedClassifier
from keras_transfer.models.calibrated_classifier import inputs_of
from keras_transfer.models.calibrator_fits import check_each_class
from keras_transfer.models.calibrator_fits import FITS
from keras_transfer.models.copied_model import with_new_metrics

LEAST = 20  # examples


def calibrate(
    model: keras.Model,
    data: Any,
    *,
    method: str = "temperature",
    folds: int = 5,
    class_names: Sequence[str] | None = None,
    from_logits: bool | None = None,
    seed: int = 0,
) -> CalibratedClassifier:
    """Return a classifier whose probabilities are right on held-out data.

    A fine-tuned network often says 0.99 and is right in 0.9 of the cases. Calibration
    puts a layer after its output, with numbers from held-out examples:

    - `"temperature"`: one number, `kt.layers.TemperatureScaling`, with the lowest log
      loss. The class of the largest score stays exactly the same, and so does the
      accuracy. It needs few examples.
    - `"vector"`: two numbers for each class, `kt.layers.VectorScaling`. It can also
      correct how frequent the classes are.
    - `"isotonic"`: a rising curve for each class, `kt.layers.IsotonicCalibration`. It
      needs some 1,000 examples and more.

    The result shares the weights of `model`, which does not change. It gives the same
    kind of outputs, logits or probabilities, and is compiled with the loss and the
    metrics of `model`, without an optimizer. `result.calibration` has the measures
    before and after, from cross-fitting, and says if calibration did not help. It holds
    for data like `data`: measure on another domain with
    `kt.analysis.calibration_error(result, other_data)`.

    Args:
        model: A built classifier with one output: any Keras model with one class for
            each example, and one output unit or several.
        data: Held-out examples that the model was not trained on, `(x, y)` as arrays, a
            finite, batched `tf.data.Dataset`, or a finite `keras.utils.PyDataset`.
            Labels are as in `kt.analysis.calibration_error`. 20 or more examples.
        method: `"temperature"`, `"vector"` or `"isotonic"`. Defaults to
            `"temperature"`.
        folds: Whole number of 2 or more, the parts of cross-fitting. Defaults to 5.
        class_names: As in `kt.analysis.calibration_error`.
        from_logits: As in `kt.analysis.calibration_error`.
        seed: Whole number, the order of the examples in the folds. Defaults to 0.

    Returns:
        A `kt.models.CalibratedClassifier`.

    Raises:
        TypeError: If `model` is not a Keras model, or `data` is of an unknown kind.
        ValueError: If there are too few examples, only one class, NaN, probabilities
            that do not sum to 1, other labels than classes, or several outputs; or if
            all examples are classified correctly, so that no temperature is best.

    Example:
        ```python
        import numpy as np
        import keras
        import keras_transfer as kt

        random = np.random.default_rng(0)
        y = random.integers(0, 3, 300)
        x = (np.eye(3)[y] + random.normal(size=(300, 3))) * 10
        model = keras.Sequential([keras.Input((3,)), keras.layers.Activation("linear")])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(loss=loss, metrics=["accuracy"])
        calibrated = kt.calibrate(model, (x, y))
        assert calibrated.calibration.temperature > 5
        print(calibrated.calibration)
        ```

    Reference:
        Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599.
        Zadrozny and Elkan 2002, Transforming Classifier Scores into Accurate Multiclass
        Probability Estimates.
    """
    one_of("method", method, FITS)
    whole_number("folds", folds, 2, why="each part is calibrated by the others")
    whole_number("seed", seed, 0)
    _check_model(model)
    read = read_outputs(model, data, from_logits=from_logits, class_names=class_names)
    read.check_two_classes(least=max(LEAST, folds))
    if method != "temperature":
        check_each_class(read, method, folds)
    after = _cross_fitted(read, FITS[method], folds, seed)
    layer = FITS[method](read)
    temperature = layer.get_config()["temperature"] if method == "temperature" else None
    content = {"method": method, "temperature": temperature, "folds": folds}
    content |= _compared(read, after)
    with _keras.scope(model):
        inputs = _like_first_batch(data) if inputs_of(model) is None else None
        result = CalibratedClassifier(
            model,
            layer,
            calibration=content,
            inputs=inputs,
            name=f"{model.name}_calibrated",
        )
        known = class_names_of(model) or getattr(data, "class_names", None)
        remember_class_names(result, known if class_names is None else read.names)
        if model.compiled:
            _compile(result, model)
    return result


def _check_model(model: object) -> None:
    check_one_output(model)
    if isinstance(model, CalibratedClassifier):
        raise ValueError(
            f"The model {model.name!r} is calibrated already. To calibrate again, pass "
            "the classifier in it, model.model."
        )
    if getattr(model, "unknown_threshold", None) is not None:
        raise ValueError(
            f"The model {model.name!r} has a threshold for unknown examples, which "
            "holds for its own scores, not for calibrated ones. Call "
            "model.forget_unknown() first, and abstain with kt.analysis.abstention."
        )


def _cross_fitted(read: LabeledOutputs, fit: Any, folds: int, seed: int) -> np.ndarray:
    """Return probabilities, each calibrated by numbers from the other folds."""
    random = np.random.default_rng(seed)
    # Equal shares of each class: shuffled, sorted by class, and dealt in turn.
    order = random.permutation(len(read.labels))
    order = order[np.argsort(read.labels[order], kind="stable")]
    fold = np.empty(len(order), "int64")
    fold[order] = np.arange(len(order)) % folds
    found = np.empty((len(order), read.num_classes))
    for each in range(folds):
        inside = fold == each
        others = read._replace(
            labels=read.labels[~inside], outputs=read.outputs[~inside]
        )
        found[inside] = _applied(fit(others), read.outputs[inside])
    return found


def _applied(layer: CalibrationLayer, outputs: np.ndarray) -> np.ndarray:
    calibrated = _keras.value(layer(outputs.astype("float32")))
    return as_probabilities(calibrated, layer.from_logits)


def _compared(read: LabeledOutputs, after: np.ndarray) -> dict:
    before = read.probabilities
    # A float32 softmax sums to 1 only about.
    after = after / after.sum(1, keepdims=True)
    changes = brier_scores(after, read.labels) - brier_scores(before, read.labels)
    change, error = changes.mean(), changes.std(ddof=1) / np.sqrt(len(changes))
    verdict = UNCLEAR
    if abs(change) > 1.96 * error:
        verdict = BETTER if change < 0 else WORSE
    return {
        "examples": len(changes),
        "before": measured(read, before, BINS),
        "after": measured(read, after, BINS),
        "brier_change": float(change),
        "brier_change_error": float(error),
        "verdict": verdict,
    }


def _like_first_batch(data: Any) -> Any:
    """Return symbolic inputs like those of the first batch."""
    if kind_of(data) == ARRAYS:
        x = rows_of(data[0], slice(0, 1))
    else:
        x = next(iter(batches_of(data)))[0]
    return keras.tree.map_structure(
        lambda each: keras.KerasTensor(
            (None, *each.shape[1:]), keras.backend.standardize_dtype(each.dtype)
        ),
        x,
    )


def _compile(result: keras.Model, model: keras.Model) -> None:
    """Compile with the loss and metrics of `model`, with a state of their own."""
    arguments = with_new_metrics(_keras.compile_arguments(model))
    # A dict by the name of the output, which has another name here.
    arguments = {
        key: next(iter(value.values()))
        if isinstance(value, Mapping) and len(value) == 1
        else value
        for key, value in arguments.items()
    }
    result.compile(**arguments | {"optimizer": None})
