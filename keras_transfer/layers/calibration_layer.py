"""CalibrationLayer: the base class of layers that calibrate the scores of classes."""

import keras
import numpy as np
from keras import ops

TINY = 1e-12  # the logarithm of a probability of 0 would be infinite
BELOW = 1 - 2**-23  # times this, a float32 is smaller
ABOVE_HALF = 0.5 + 2**-24  # the smallest float32 above 0.5


@keras.saving.register_keras_serializable(package="keras_transfer")
class CalibrationLayer(keras.Layer):
    """A layer from the scores of classes to calibrated scores of the same kind.

    The last axis has a score for each class. If it has one score only, this is the
    score of the second of two classes. The layer computes in float32.

    Args:
        from_logits: Whether inputs and outputs are logits; if False, probabilities.
        **kwargs: `name` and `dtype`, as for every Keras layer.
    """

    def __init__(self, from_logits: bool, **kwargs: object):
        # As for logits: probabilities near 1 are all equal in half precision.
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.from_logits = bool(from_logits)
        self.supports_masking = True

    def build(self, input_shape: tuple) -> None:
        """Check that the number of classes is known, and make the weights."""
        if len(input_shape) < 2 or input_shape[-1] is None:
            raise ValueError(
                f"The input of {type(self).__name__} has the shape "
                f"{tuple(input_shape)}, but its last axis must have a known number of "
                "scores, one for each class."
            )
        self.make_weights(int(input_shape[-1]))
        self.built = True

    def make_weights(self, width: int) -> None:
        """Make the weights for `width` scores."""
        raise NotImplementedError

    def make_weight(self, name: str, value: object) -> keras.Variable:
        """Return a weight with this value that no optimizer trains."""
        return self.add_weight(
            shape=np.shape(value),
            initializer=lambda shape, dtype=None: ops.convert_to_tensor(value, dtype),
            trainable=False,
            autocast=False,
            dtype="float32",
            name=name,
        )

    def logits_of(self, inputs: object) -> object:
        """Return the inputs as logits."""
        if self.from_logits:
            return inputs
        logits = ops.log(ops.maximum(inputs, TINY))
        if inputs.shape[-1] == 1:
            logits = logits - ops.log(ops.maximum(1 - inputs, TINY))
        return logits

    def outputs_of(self, logits: object) -> object:
        """Return logits as outputs of the same kind as the inputs."""
        if self.from_logits:
            return logits
        return ops.sigmoid(logits) if logits.shape[-1] == 1 else ops.softmax(logits)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the same shape."""
        return tuple(input_shape)

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {"from_logits": self.from_logits}


def keep_largest(inputs: object, outputs: object, from_logits: bool) -> object:
    """Return outputs whose largest score is where the inputs have it.

    Scores that differ in their last bit can become equal when they are divided. The
    first of equal scores counts as the largest, so the class could change. This lowers
    the others by one bit, if they are equal to the largest.
    """
    if inputs.shape[-1] == 1:
        if from_logits:
            return outputs
        # Otherwise 0.50000006 could become 0.5, which is the other class.
        high = ops.maximum(outputs, ABOVE_HALF)
        return ops.where(inputs > 0.5, high, ops.minimum(outputs, 0.5))
    width = inputs.shape[-1]
    first = ops.one_hot(ops.argmax(inputs, axis=-1), width, dtype="bool")
    top = ops.max(outputs, axis=-1, keepdims=True)
    lower = ops.where(top > 0, top * BELOW, top / BELOW - TINY)
    return ops.where(first, top, ops.minimum(outputs, lower))
