"""Calibration: what `kt.calibrate` has done, and whether it helped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_transfer.analysis.calibration.calibration_error import CalibrationError
from keras_transfer.analysis.calibration.calibration_error import rows
from keras_transfer.analysis.calibration.diagram import diagrams
from keras_transfer.analysis.calibration.drawn_result import DrawnResult
from keras_transfer.analysis.report.tables import Section

BETTER, UNCLEAR, WORSE = "better", "not clearly different", "worse"


class Calibration(DrawnResult):
    """What `kt.calibrate` has done: the measures before and after, and a verdict.

    `model.calibration` has it, and a saved model keeps it. The figures after are from
    cross-fitting: each example is calibrated by numbers from the other folds, so they
    are not measured on the examples of the fit. The numbers of the model itself are
    from all examples. `print`, `plot` and `save` work as for `CalibrationError`, with
    both reliability diagrams.

    The verdict compares the Brier scores of the same examples, which is a proper
    score: `"better"` or `"worse"` if the mean difference is larger than 1.96 standard
    errors, else `"not clearly different"`.

    Args:
        content: Dict that JSON can store, the content of the result.

    Example:
        ```python
        import numpy as np
        import keras
        import keras_transfer as kt

        random = np.random.default_rng(0)
        y = random.integers(0, 2, 400)
        x = (y[:, None] * 2 - 1 + random.normal(size=(400, 1))) * 20
        model = keras.Sequential(
            [keras.Input((1,)), keras.layers.Activation("sigmoid")]
        )
        model.compile(loss="binary_crossentropy")
        calibrated = kt.calibrate(model, (x, y))
        assert calibrated.calibration.helped
        assert calibrated.calibration.after.ece < calibrated.calibration.before.ece
        ```

    Reference:
        Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599.
    """

    kind = "calibration"
    words = "Reliability diagrams before and after calibration"

    @property
    def method(self) -> str:
        """`"temperature"`, `"vector"` or `"isotonic"`."""
        return self._content["method"]

    @property
    def temperature(self) -> float | None:
        """The temperature, or None for another method."""
        return self._content["temperature"]

    @property
    def before(self) -> CalibrationError:
        """The measures of the model as it was."""
        return CalibrationError(self._content["before"])

    @property
    def after(self) -> CalibrationError:
        """The measures after calibration, from cross-fitting."""
        return CalibrationError(self._content["after"])

    @property
    def verdict(self) -> str:
        """`"better"`, `"not clearly different"` or `"worse"`."""
        return self._content["verdict"]

    @property
    def helped(self) -> bool:
        """Whether the verdict is `"better"`."""
        return self.verdict == BETTER

    def _draw(self) -> Any:
        content = self._content
        return diagrams({"before": content["before"], "after": content["after"]})

    def _sections(self) -> Sequence[Section]:
        content = self._content
        before, after = content["before"], content["after"]
        said = {
            BETTER: "Calibration helped",
            UNCLEAR: "Calibration did not clearly help",
            WORSE: "Calibration did not help: it is worse than before",
        }[content["verdict"]]
        change, error = content["brier_change"], content["brier_change_error"]
        notes = (
            f"{said}: the Brier score changed by {change:+.4f} (standard error "
            f"{error:.4f}), ECE from {before['ece']:.4f} to {after['ece']:.4f}.",
            f"{content['examples']} examples; after: from {content['folds']} folds, "
            "each calibrated by the others.",
        )
        if content["temperature"] is not None:
            notes += (f"Temperature: {content['temperature']:.4f}.",)
        if after["accuracy"] != before["accuracy"]:
            notes += (
                f"The accuracy changed from {before['accuracy']:.4f} to "
                f"{after['accuracy']:.4f}, because the method can change the class.",
            )
        title = f"Calibration by {content['method']}"
        header = ("measure", "before", "after")
        return [Section("calibration", title, notes, header, rows(before, after))]

    def __repr__(self) -> str:
        return (
            f"<Calibration by {self.method}: {self.verdict}, ECE "
            f"{self.before.ece:.4f} -> {self.after.ece:.4f}. Use print() to show it>"
        )
