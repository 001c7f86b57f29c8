"""DomainRandomization: random changes of the appearance of training images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers
from keras import ops

from keras_transfer import _keras
from keras_transfer._arguments import fraction
from keras_transfer._arguments import is_number
from keras_transfer._arguments import whole_number


@keras.saving.register_keras_serializable(package="keras_transfer")
class DomainRandomization(keras.layers.Layer):
    """Randomize light, color, polarity, noise and occlusion of training images.

    Use this layer if you have no images of the target domain. It trains the model on
    so many variations of the source that the target looks like one more variation.
    Do not randomize a property that separates the classes. For example, pass `color=0`
    for ripe and unripe fruit, and `invert=0` if the classes differ in brightness. Each
    image gets its own random values. These layers of Keras run in this order:

        brightness    RandomBrightness, +- color of the range
        contrast      RandomContrast, times 1 - color to 1 + color
        hue           RandomHue, +- color / 2 of the circle; RGB only
        saturation    RandomSaturation, times (1 - color) / (1 + color) to the inverse
        polarity      RandomInvert, for a fraction `invert` of the images
        noise         GaussianNoise, with the standard deviation `noise`
        occlusion     RandomErasing, with noise, over up to `occlusion` of the area

    Each amount is multiplied by `strength`. An amount of 0 leaves out its step. The
    steps compute in float32 on values from 0 to 1, for every value range and dtype
    policy, because some of the Keras layers fail in other ranges and in float16
    graphs. In inference the layer is the identity, so you can save and export it as
    the first layer of a model. Under XLA the random numbers differ from the numbers
    without XLA.

    Args:
        strength: Float in [0, 1], a factor of all amounts; 0 is the identity.
            Defaults to 1.0.
        color: Float in [0, 1], the amount of the light and color changes. Defaults to
            0.5.
        invert: Float in [0, 1], the fraction of images to invert. Defaults to 0.5.
        noise: Float in [0, 1], the standard deviation of the noise as a fraction of
            the value range. Defaults to 0.1.
        occlusion: Float in [0, 1], the largest area to cover as a fraction of the
            image. Defaults to 0.3.
        value_range: Pair of numbers, the lowest and the highest value of a pixel,
            such as `(0, 255)`. In training, values outside are clipped. Defaults to
            `(0, 1)`.
        seed: Integer, the seed of the random numbers, or `None` to follow
            `keras.utils.set_random_seed`. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Input shape:
        `(batch_size, height, width, channels)`, or `(height, width, channels)` in a
        `tf.data` pipeline of single images. The order of the axes is the order of
        `keras.config.image_data_format()`. Integers or floats.

    Output shape:
        The shape of the input, as floats.

    Example:
        ```python
        import keras
        import numpy as np
        import keras_transfer as kt

        layer = kt.layers.DomainRandomization(seed=1)
        images = np.full((2, 8, 8, 3), 0.5, "float32")
        assert (layer(images) == images).numpy().all()  # not in training
        assert (layer(images, training=True) != images).numpy().any()
        model = keras.Sequential([keras.Input((8, 8, 3)), layer])
        # In tf.data: dataset.map(lambda x, y: (layer(x, training=True), y))
        ```

    Raises:
        ValueError: If an amount is outside [0, 1], `value_range` is not a range,
            `seed` is not a whole number, the input does not have the shape of images,
            or the images are integers and `value_range` ends at 1 or below.
        NotImplementedError: In a tf.data pipeline on JAX.

    Reference:
        Tobin et al., 2017, "Domain Randomization for Transferring Deep Neural
        Networks from Simulation to the Real World", arXiv 1703.06907.
    """

    def __init__(
        self,
        strength: float = 1.0,
        *,
        color: float = 0.5,
        invert: float = 0.5,
        noise: float = 0.1,
        occlusion: float = 0.3,
        value_range: Sequence[float] = (0, 1),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.strength = fraction("strength", strength)
        self.color = fraction("color", color)
        self.invert = fraction("invert", invert)
        self.noise = fraction("noise", noise)
        self.occlusion = fraction("occlusion", occlusion)
        self.value_range = _checked_range(value_range)
        self.seed = None if seed is None else whole_number("seed", seed, None)
        self._gray_steps = []
        self._rgb_steps = []
        for step, needs_color in self._make_steps():
            self._rgb_steps.append(step)
            if not needs_color:
                self._gray_steps.append(step)

    def build(self, input_shape: tuple) -> None:
        """Build all steps."""
        if len(input_shape) not in (3, 4):
            raise ValueError(
                f"The input has the shape {tuple(input_shape)}, which is not a shape "
                "of images. Pass (batch_size, height, width, channels), or one image "
                "of shape (height, width, channels)."
            )
        for step in self._rgb_steps:
            step.build(input_shape)
        super().build(input_shape)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Refuse tensors of a tf.data pipeline on JAX, and call the layer."""
        if _keras.is_foreign(inputs):
            raise NotImplementedError(
                "DomainRandomization in a tf.data pipeline needs the TensorFlow "
                "backend, but the backend is jax. Make it a layer of the model "
                "instead, before the other layers."
            )
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the images, randomized if `training` and unchanged otherwise."""
        images = ops.cast(inputs, self.compute_dtype)
        steps = self._steps(inputs.shape)
        low, high = self.value_range
        if keras.backend.is_int_dtype(inputs.dtype) and high <= 1:
            raise ValueError(
                f"The images are {keras.backend.standardize_dtype(inputs.dtype)}, but "
                f"value_range={self.value_range}. Pass the range of the pixels, for "
                "example value_range=(0, 255), or rescale the images to floats first."
            )
        if not training or not steps:
            return images
        images = (ops.cast(inputs, "float32") - low) / (high - low)
        for step in steps:
            images = step(ops.clip(images, 0.0, 1.0), training=True)
        images = ops.clip(images, 0.0, 1.0) * (high - low) + low
        return ops.cast(images, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the shape of the input."""
        return input_shape

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {
            "strength": self.strength,
            "color": self.color,
            "invert": self.invert,
            "noise": self.noise,
            "occlusion": self.occlusion,
            "value_range": self.value_range,
            "seed": self.seed,
        }

    def _make_steps(self) -> list:
        """Return each layer that has an effect, and whether the layer needs RGB."""
        color, invert, noise, occlusion = (
            self.strength * amount
            for amount in (self.color, self.invert, self.noise, self.occlusion)
        )
        # With one seed for all steps, each step would get the same random numbers.
        common = [
            {"seed": None if self.seed is None else self.seed + i, "dtype": "float32"}
            for i in range(7)
        ]
        scaled = [settings | {"value_range": (0, 1)} for settings in common]
        # Keras reads a single number as the range from 0 to this number.
        saturation = ((1 - color) / 2, (1 + color) / 2)
        steps = []
        if color:
            steps += [
                (layers.RandomBrightness((-color, color), **scaled[0]), False),
                (layers.RandomContrast((color, color), **scaled[1]), False),
                (layers.RandomHue((0.0, color), **scaled[2]), True),
                (layers.RandomSaturation(saturation, **scaled[3]), True),
            ]
        if invert:
            steps.append((layers.RandomInvert((invert, invert), **scaled[4]), False))
        if noise:
            steps.append((layers.GaussianNoise(noise, **common[5]), False))
        if occlusion:
            area = (0.0, occlusion)
            erasing = layers.RandomErasing((1.0, 1.0), scale=area, **scaled[6])
            steps.append((erasing, False))
        return steps

    def _steps(self, shape: tuple) -> list:
        last = keras.config.image_data_format() == "channels_last"
        return self._rgb_steps if shape[-1 if last else -3] == 3 else self._gray_steps


def _checked_range(value_range: Sequence[float]) -> tuple[float, float]:
    pair = isinstance(value_range, tuple | list) and len(value_range) == 2
    numbers = pair and all(is_number(x) and math.isfinite(x) for x in value_range)
    if not numbers or not value_range[0] < value_range[1]:
        raise ValueError(
            f"value_range={value_range!r} must be the lowest and the highest value of "
            "a pixel: two finite numbers, the lower first, such as (0, 1) or (0, 255)."
        )
    return tuple(float(x) for x in value_range)
