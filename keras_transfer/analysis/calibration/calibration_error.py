"""calibration_error: how far the confidence of a classifier is from its accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer._arguments import whole_number
from keras_transfer.analysis.calibration.diagram import diagrams
from keras_transfer.analysis.calibration.drawn_result import DrawnResult
from keras_transfer.analysis.calibration.labeled_outputs import LabeledOutputs
from keras_transfer.analysis.calibration.labeled_outputs import of_probabilities
from keras_transfer.analysis.calibration.labeled_outputs import read_outputs
from keras_transfer.analysis.calibration.measures import brier_scores
from keras_transfer.analysis.calibration.measures import expected_error
from keras_transfer.analysis.calibration.measures import log_losses
from keras_transfer.analysis.calibration.measures import reliability
from keras_transfer.analysis.calibration.measures import square_error
from keras_transfer.analysis.report.tables import clean
from keras_transfer.analysis.report.tables import Section

BINS = 15  # as in the paper of Guo et al.
EMPTY = "no examples"
MEASURES = {
    "accuracy": "accuracy",
    "confidence": "mean confidence",
    "ece": "ECE",
    "rms": "RMS error",
    "rms_debiased": "RMS error, debiased",
    "classwise_ece": "ECE over all classes",
    "log_loss": "log loss",
    "brier": "Brier score",
}


class CalibrationError(DrawnResult):
    """The result of `kt.analysis.calibration_error`, with a reliability diagram.

    `print(error)` shows the measures, the bins and the classes, and `error.plot()`
    draws the diagram. `error.save(path)` writes it as `.html`, `.md`, `.json`, `.txt`
    or `.png`.

    Args:
        content: Dict that JSON can store, the content of the result.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        shares = np.tile([0.8, 0.2], (20, 1))
        error = kt.analysis.calibration_error(shares, np.arange(20) % 2, bins=10)
        again = kt.analysis.CalibrationError(error.to_dict())
        assert round(again.ece, 6) == 0.3
        ```

    Reference:
        Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599.
    """

    kind = "calibration error"
    words = "Reliability diagram: accuracy against confidence, and shares of examples"

    @property
    def ece(self) -> float:
        """The expected calibration error."""
        return self._content["ece"]

    @property
    def rms_debiased(self) -> float:
        """The debiased root mean square calibration error."""
        return self._content["rms_debiased"]

    @property
    def accuracy(self) -> float:
        """The share of examples whose most probable class is right."""
        return self._content["accuracy"]

    def _draw(self) -> Any:
        return diagrams({f"{self._content['examples']} examples": self._content})

    def _sections(self) -> Sequence[Section]:
        content = self._content
        count, size = content["examples"], len(content["bins"])
        notes = (
            f"{count} examples of {len(content['classes'])} classes, {size} bins.",
            "ECE: mean gap between confidence and accuracy, over bins of equal width.",
            "RMS: root of the mean squared gap, over bins of equal counts; debiased: "
            "without the part that comes from the number of examples.",
        )
        return [
            Section(
                "error", "Calibration error", notes, ("measure", "value"), rows(content)
            ),
            Section(
                "bins",
                "Confidence and accuracy",
                (),
                ("confidence", "examples", "mean confidence", "accuracy"),
                tuple(map(_cells, content["bins"])),
            ),
            Section(
                "classes",
                "Classes",
                ("ECE of a class: its probability against its frequency.",),
                ("class", "examples", "mean probability", "frequency", "ECE"),
                tuple(
                    (
                        clean(row["name"]),
                        f"{row['examples']:,}",
                        f"{row['probability']:.4f}",
                        f"{row['examples'] / count:.4f}",
                        f"{row['ece']:.4f}",
                    )
                    for row in content["classes"]
                ),
            ),
        ]

    def __repr__(self) -> str:
        return f"<CalibrationError: ECE {self.ece:.4f}. Use print() to show it>"


def calibration_error(
    model: keras.Model | Any,
    data: Any,
    *,
    bins: int = BINS,
    class_names: Sequence[str] | None = None,
    from_logits: bool | None = None,
) -> CalibrationError:
    """Measure how far the confidence of a classifier is from its accuracy.

    The confidence of an example is the probability of the most probable class. Of the
    examples with a confidence of about 0.8, 80 % should be right. With the bins B_m of
    equal width over the confidence,

        ECE = sum_m |B_m| / n * |accuracy(B_m) - confidence(B_m)|

    This estimate is too large for few examples, because the noise of each accuracy
    counts as an error: it is not 0 even for a perfectly calibrated model. The debiased
    estimate is the root of

        sum_m |B_m| / n * [(a_m - c_m)^2 - a_m (1 - a_m) / (|B_m| - 1)]

    for the accuracies a_m and mean confidences c_m of bins of equal counts, or 0 if the
    sum is negative. Compare models by it, or by
    the log loss and the Brier score, which are proper scores. The ECE over all classes
    is the mean of the ECE of each class, with its own probability as confidence.

    The figures hold for data like `data`. Pass data of another domain to measure
    calibration under shift: a model that is calibrated on its own domain can be far
    from it there.

    Args:
        model: A built Keras model with one output, or an array of probabilities
            `(examples, classes)`, or `(examples,)` for the second of two classes. The
            model does not change.
        data: For a model: held-out examples `(x, y)` as arrays, a finite, batched
            `tf.data.Dataset`, or a finite `keras.utils.PyDataset`. For probabilities:
            their labels. Labels are class numbers from 0, one-hot rows, or names of
            `class_names`.
        bins: Whole number of 2 or more, the number of bins. Defaults to 15.
        class_names: Names of the classes in the order of the outputs. Defaults to None:
            the names of the data or of `fine_tune`, or else numbers.
        from_logits: Whether the outputs are logits. Defaults to None: as the compiled
            loss says, or else the last layer and the outputs. It has no meaning for
            probabilities.

    Returns:
        A `CalibrationError`, with `ece`, `rms_debiased` and `accuracy`. `to_dict()` has
        all measures.

    Raises:
        TypeError: If `model` is neither a model nor an array, or `data` is of an
            unknown kind.
        ValueError: If there are fewer examples than bins, only one class, NaN,
            probabilities that do not sum to 1, other labels than classes, another
            number of labels, or several outputs.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        # Says 0.8, and is right half of the time.
        shares = np.tile([0.8, 0.2], (20, 1))
        error = kt.analysis.calibration_error(shares, np.arange(20) % 2)
        assert round(error.ece, 6) == 0.3
        print(error)
        ```

    Reference:
        Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599,
        equation 3. Kumar, Liang and Ma 2019, Verified Uncertainty Calibration,
        arXiv:1909.10155, definition 5.1 (the debiased estimate).
    """
    whole_number("bins", bins, 2, why="it is the number of bins of confidence")
    if isinstance(model, keras.Model):
        read = read_outputs(
            model, data, from_logits=from_logits, class_names=class_names
        )
    else:
        if from_logits is not None:
            raise ValueError(
                f"from_logits={from_logits!r} has no effect on an array, which must "
                "have probabilities. Leave it out, and apply scipy.special.softmax to "
                "logits."
            )
        read = of_probabilities(model, data, class_names)
    read.check_two_classes(least=bins)
    return CalibrationError(measured(read, read.probabilities, bins))


def measured(read: LabeledOutputs, probabilities: np.ndarray, bins: int) -> dict:
    """Return the content of a `CalibrationError` for probabilities of all classes."""
    labels = read.labels
    confidences = probabilities.max(1)
    hits = (probabilities.argmax(1) == labels).astype("float64")
    squares = [
        square_error(confidences, hits, bins, debiased=each) for each in (False, True)
    ]
    classes = [
        {
            "name": name,
            "examples": int((labels == place).sum()),
            "probability": float(probabilities[:, place].mean()),
            "ece": expected_error(
                probabilities[:, place], (labels == place).astype("float64"), bins
            ),
        }
        for place, name in enumerate(read.names)
    ]
    return {
        "examples": len(labels),
        "accuracy": float(hits.mean()),
        "confidence": float(confidences.mean()),
        "ece": float(expected_error(confidences, hits, bins)),
        "rms": float(np.sqrt(squares[0])),
        "rms_debiased": float(np.sqrt(max(squares[1], 0.0))),
        "classwise_ece": float(np.mean([row["ece"] for row in classes])),
        "log_loss": float(log_losses(probabilities, labels).mean()),
        "brier": float(brier_scores(probabilities, labels).mean()),
        "bins": reliability(confidences, hits, bins),
        "classes": classes,
    }


def rows(*contents: dict) -> tuple[tuple[str, ...], ...]:
    """Return the rows of a table of measures, with a column for each content."""
    return tuple(
        (title, *(f"{content[key]:.4f}" for content in contents))
        for key, title in MEASURES.items()
    )


def _cells(row: dict) -> tuple[str, ...]:
    shown = [
        EMPTY if row[key] is None else f"{row[key]:.4f}"
        for key in ("confidence", "accuracy")
    ]
    return (f"{row['low']:.3f} to {row['high']:.3f}", f"{row['examples']:,}", *shown)
