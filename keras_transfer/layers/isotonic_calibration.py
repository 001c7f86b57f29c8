"""IsotonicCalibration: a rising curve from the probability of a class to another."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from keras_transfer._arguments import fraction
from keras_transfer.layers.calibration_layer import CalibrationLayer

FLOOR = 1e-7  # of probabilities in logits, which must be finite


@keras.saving.register_keras_serializable(package="keras_transfer")
class IsotonicCalibration(CalibrationLayer):
    """Map the probability of each class by its own rising curve, and normalize.

    A curve is a line through points `(x_1, y_1), (x_2, y_2), ...` that rise, and
    constant before the first and after the last point. With the probabilities p and
    the curve f_k of class k, the result is

        q_k = f_k(p_k) / sum_j f_j(p_j)

    or the same share for each class if all f_j are 0. For one score, and for two
    classes, only the second class has a curve, and the first has `1 - f(p)`. This is
    `CalibratedClassifierCV(method="isotonic")` of scikit-learn for a classifier with
    `predict_proba`. The class of the largest score can change. `kt.calibrate` chooses
    the points on held-out data.

    If the inputs are logits, p is their softmax or sigmoid, and the outputs are logits
    again: `log max(q, 1e-7)`, whose softmax is q; for one score, `log(q / (1 - q))`.

    Args:
        x: List of lists of numbers from 0 to 1 that do not fall, one list for each
            curve, all of the same length.
        y: The same for the values of the curves.
        from_logits: Whether inputs and outputs are logits; if False, probabilities.
            Defaults to True.
        **kwargs: `name` and `dtype`, as for every Keras layer. The default dtype is
            float32.

    Input shape:
        `(batch, ..., classes)`, or `(batch, ..., 1)` for two classes.

    Output shape:
        The same shape.

    Example:
        ```python
        import numpy as np
        import keras_transfer as kt

        curve = kt.layers.IsotonicCalibration(
            [[0.0, 0.5, 1.0]], [[0.0, 0.25, 1.0]], from_logits=False
        )
        assert curve(np.array([[0.5], [0.75]])).numpy().tolist() == [[0.25], [0.625]]
        ```

    Raises:
        ValueError: If the points are out of range, fall, or differ in number, or if
            there is another number of curves than of classes.

    Reference:
        Zadrozny and Elkan, 2002, "Transforming Classifier Scores into Accurate
        Multiclass Probability Estimates".
    """

    def __init__(
        self,
        x: Sequence[Sequence[float]],
        y: Sequence[Sequence[float]],
        *,
        from_logits: bool = True,
        **kwargs: object,
    ):
        super().__init__(from_logits, **kwargs)
        self._points = {"x": _rising("x", x), "y": _rising("y", y)}
        lengths = {len(row) for rows in self._points.values() for row in rows}
        if len(lengths) != 1 or len(self._points["x"]) != len(self._points["y"]):
            raise ValueError(
                f"x has {len(x)} curves and y has {len(y)}, with {sorted(lengths)} "
                "points. Pass the same number of points for each curve in x and y."
            )

    def make_weights(self, width: int) -> None:
        """Make the points."""
        curves = 1 if width <= 2 else width
        if len(self._points["x"]) != curves:
            raise ValueError(
                f"There are {len(self._points['x'])} curves, but {width} scores need "
                f"{curves}. Pass one curve for each class, or one for two classes."
            )
        self.x = self.make_weight("x", self._points["x"])
        self.y = self.make_weight("y", self._points["y"])

    def call(self, inputs: object) -> object:
        """Return the scores on the curves."""
        width = inputs.shape[-1]
        shares = inputs
        if self.from_logits:
            shares = ops.sigmoid(inputs) if width == 1 else ops.softmax(inputs)
        if width <= 2:
            second = _on_curves(shares[..., -1:], self.x, self.y)
            if width == 1:
                return _logit(second) if self.from_logits else second
            shares = ops.concatenate([1 - second, second], axis=-1)
        else:
            values = _on_curves(shares, self.x, self.y)
            total = ops.sum(values, axis=-1, keepdims=True)
            shares = ops.where(
                total > 0, values / ops.where(total > 0, total, 1.0), 1.0 / width
            )
        return ops.log(ops.maximum(shares, FLOOR)) if self.from_logits else shares

    def get_config(self) -> dict:
        """Return the arguments. The weights have the points."""
        return super().get_config() | self._points


def _on_curves(values: object, x: object, y: object) -> object:
    """Return the curves at `(..., curves)` values."""
    last = x.shape[1] - 1
    # The number of points at or below the value gives the piece.
    below = ops.sum(ops.cast(values[..., None] >= x, "int32"), axis=-1)
    end = ops.minimum(below, last)
    start = ops.minimum(ops.maximum(below - 1, 0), last)
    x0, x1, y0, y1 = (
        ops.sum(ops.one_hot(place, last + 1) * points, axis=-1)
        for points, place in ((x, start), (x, end), (y, start), (y, end))
    )
    width = x1 - x0
    share = (values - x0) / ops.where(width > 0, width, 1.0)
    share = ops.where(width > 0, ops.clip(share, 0.0, 1.0), 0.0)
    return y0 + share * (y1 - y0)


def _logit(shares: object) -> object:
    shares = ops.clip(shares, FLOOR, 1 - FLOOR)
    return ops.log(shares) - ops.log(1 - shares)


def _rising(name: str, rows: Sequence[Sequence[float]]) -> list[list[float]]:
    found = [[fraction(f"a number of {name}", each) for each in row] for row in rows]
    for place, row in enumerate(found):
        if not row or sorted(row) != row:
            raise ValueError(
                f"{name}[{place}]={row} must have one or more numbers that do not "
                "fall: a curve of isotonic regression rises."
            )
    if not found:
        raise ValueError(f"{name} is empty. Pass one list for each curve.")
    return found
