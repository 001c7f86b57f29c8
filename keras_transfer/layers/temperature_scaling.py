"""TemperatureScaling: divide the logits of all classes by one number."""

import keras

from keras_transfer._arguments import positive
from keras_transfer.layers.calibration_layer import CalibrationLayer
from keras_transfer.layers.calibration_layer import keep_largest


@keras.saving.register_keras_serializable(package="keras_transfer")
class TemperatureScaling(CalibrationLayer):
    """Divide the logits by a temperature, which changes how certain a model says it is.

    With the logits z and the temperature T, the probabilities are

        p = softmax(z / T)

    or `sigmoid(z / T)` for one score. T above 1 makes them less certain, T below 1
    makes them more certain. The order of the classes is the same, and the class of the
    largest score is exactly the same for every example: where rounding would make
    another score equal to the largest, it is lowered by one bit. The accuracy can
    therefore not change. `kt.calibrate` chooses the temperature on held-out data.

    Args:
        temperature: Float above 0. It becomes a weight that does not train. Defaults to
            1.0, which changes nothing.
        from_logits: Whether inputs and outputs are logits; if False, they are
            probabilities p, and `z = log p`, or `log(p / (1 - p))` for one score.
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

        y = kt.layers.TemperatureScaling(2.0)(np.array([[4.0, 2.0]]))
        assert y.numpy().tolist() == [[2.0, 1.0]]
        ```

    Raises:
        ValueError: If the temperature is not a finite number above 0, or the number of
            scores is unknown.

    Reference:
        Guo et al., 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599,
        equation 9.
    """

    def __init__(
        self, temperature: float = 1.0, *, from_logits: bool = True, **kwargs: object
    ):
        super().__init__(from_logits, **kwargs)
        self._start = positive("temperature", temperature, "the logits are divided")

    def make_weights(self, width: int) -> None:
        """Make the temperature."""
        self.temperature = self.make_weight("temperature", self._start)

    def call(self, inputs: object) -> object:
        """Return the scores at the temperature."""
        outputs = self.outputs_of(self.logits_of(inputs) / self.temperature)
        return keep_largest(inputs, outputs, self.from_logits)

    def get_config(self) -> dict:
        """Return the arguments. The weight has the temperature."""
        return super().get_config() | {"temperature": self._start}
