"""Layers that only a RecurrentLanguageModel has: the output bias and two penalties."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_transfer")
class Bias(keras.layers.Layer):
    """Adds a bias to the last axis."""

    def build(self, input_shape: tuple) -> None:
        """Create the bias."""
        self.bias = self.add_weight(
            shape=(input_shape[-1],), initializer="zeros", name="bias"
        )

    def call(self, inputs: object) -> object:
        """Return the sum."""
        return inputs + self.bias


@keras.saving.register_keras_serializable(package="keras_transfer")
class Penalties(keras.layers.Layer):
    """Adds activation and temporal activation regularization to the loss.

    With the outputs h_t and their values d_t after dropout, it adds
    `activation * mean(d_t^2) + slowness * mean((h_t+1 - h_t)^2)`. Padding does not
    count.

    Args:
        activation: Float of 0 or more.
        slowness: Float of 0 or more.
        **kwargs: `name`.
    """

    def __init__(self, activation: float, slowness: float, **kwargs: object):
        super().__init__(**{"dtype": "float32"} | kwargs)
        self.activation, self.slowness = activation, slowness
        self.supports_masking = True

    def call(self, outputs: object, dropped: object, mask: object) -> object:
        """Add the penalties, and return the outputs after dropout."""
        if self.activation:
            self.add_loss(self.activation * _mean_square(dropped, mask))
        if self.slowness:
            both = ops.logical_and(mask[:, 1:], mask[:, :-1])
            steps = outputs[:, 1:] - outputs[:, :-1]
            self.add_loss(self.slowness * _mean_square(steps, both))
        return dropped

    def get_config(self) -> dict:
        """Return the arguments."""
        own = {"activation": self.activation, "slowness": self.slowness}
        return super().get_config() | own


def _mean_square(x: object, mask: object) -> object:
    """Return the mean square of the positions in the mask, 0 without a position."""
    squares = ops.where(mask[..., None], ops.square(x), ops.zeros_like(x))
    count = ops.sum(ops.cast(mask, "float32")) * x.shape[-1]
    return ops.sum(squares) / ops.maximum(count, 1.0)
