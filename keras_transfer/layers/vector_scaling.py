"""VectorScaling: a factor and an offset for the logit of each class."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from keras_transfer._arguments import number
from keras_transfer.layers.calibration_layer import CalibrationLayer


@keras.saving.register_keras_serializable(package="keras_transfer")
class VectorScaling(CalibrationLayer):
    """Multiply the logit of each class by a factor, and add an offset.

    With the logits z, the factors w and the offsets b, the probabilities are

        p = softmax(w * z + b)

    For one score, `p = sigmoid(w z + b)`, which is Platt scaling. Offsets can correct
    the frequencies of classes, which a temperature cannot. The class of the largest
    score can change, and so can the accuracy. `kt.calibrate` chooses the numbers on
    held-out data.

    Args:
        factors: Finite numbers, one for each score. They become weights that do not
            train. Defaults to None: 1 for each score.
        offsets: Finite numbers, one for each score. Defaults to None: 0 for each score.
        from_logits: As in `TemperatureScaling`. Defaults to True.
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

        layer = kt.layers.VectorScaling([0.5, 1.0], [0.0, -1.0])
        assert layer(np.array([[4.0, 2.0]])).numpy().tolist() == [[2.0, 1.0]]
        ```

    Raises:
        ValueError: If a number is not finite, or there is another number of factors or
            offsets than of scores.

    Reference:
        Guo et al., 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599,
        section 4.2; Platt, 1999, "Probabilistic Outputs for Support Vector Machines".
    """

    def __init__(
        self,
        factors: Sequence[float] | None = None,
        offsets: Sequence[float] | None = None,
        *,
        from_logits: bool = True,
        **kwargs: object,
    ):
        super().__init__(from_logits, **kwargs)
        self._starts = {
            "factors": _numbers("factors", factors),
            "offsets": _numbers("offsets", offsets),
        }

    def make_weights(self, width: int) -> None:
        """Make the factors and the offsets."""
        found = []
        for name, default in (("factors", 1.0), ("offsets", 0.0)):
            values = self._starts[name]
            values = [default] * width if values is None else values
            if len(values) != width:
                raise ValueError(
                    f"{name} has {len(values)} numbers, but the input has {width} "
                    "scores. Pass one number for each score."
                )
            found.append(self.make_weight(name, values))
        self.factors, self.offsets = found

    def call(self, inputs: object) -> object:
        """Return the scores with factors and offsets."""
        logits = self.logits_of(inputs)
        return self.outputs_of(ops.multiply(logits, self.factors) + self.offsets)

    def get_config(self) -> dict:
        """Return the arguments. The weights have the numbers."""
        return super().get_config() | self._starts


def _numbers(name: str, values: Sequence[float] | None) -> list[float] | None:
    if values is None:
        return None
    return [number(f"{name}[{i}]", each) for i, each in enumerate(values)]
