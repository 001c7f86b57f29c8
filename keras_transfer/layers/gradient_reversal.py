"""GradientReversal: the identity forward, a negative multiple of the gradient back."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import ops

from keras_transfer._arguments import is_number
from keras_transfer._arguments import number

Schedule = Callable[[object], object]

NO_STEP = (
    "there is no step to count with. Pass `step=optimizer.iterations` of the optimizer "
    "that trains the model; after reload set `layer.step = model.optimizer.iterations`."
)


@keras.saving.register_keras_serializable(package="keras_transfer")
class GradientReversal(keras.layers.Layer):
    """Pass the input on unchanged; multiply the gradient by minus the strength.

    What stands before the layer is trained to worsen what stands after it: behind
    features and before a domain classifier it makes the features those from which
    the domains cannot be told apart. With strength s:

        forward   y = x
        backward  dL/dx = -s dL/dy

    The forward pass gives the very bits of the input in each dtype, infinities
    included. The usual form `x * (-s) + stop_gradient(x * (1 + s))` is off by up to
    0.38 in bfloat16. `kt.models.DANN` has the reversal in it; use the layer to build
    such a network by hand.

    Args:
        strength: 0 or more, without unit: a number; or a `keras.Variable`, which
            is followed when its value changes and saved with the layer; or a
            schedule, a function of the step such as `kt.optimizers.GaninRampUp`.
            Defaults to 1.
        step: What a schedule counts: `optimizer.iterations`, a variable. It is read
            in the graph, so that a resumed training, or one of several steps an
            execution, has the strength of its step. It is not saved: after reload
            set `layer.step = model.optimizer.iterations` before training. With a
            schedule the layer is the plain identity in inference
            (`training=False`), gradient included, so that an exported model does
            not need the optimizer.
        **kwargs: `name` and `dtype`, as for every layer.

    Input shape:
        Any.

    Output shape:
        That of the input.

    Example:
        ```python
        import keras
        import numpy as np
        import keras_transfer as kt

        optimizer = keras.optimizers.SGD(0.01)
        ramp_up = kt.optimizers.GaninRampUp(total_steps=100)
        x = keras.Input((4,))
        features = keras.layers.Dense(3)(x)
        reversal = kt.layers.GradientReversal(ramp_up, step=optimizer.iterations)
        domain = keras.layers.Dense(1)(reversal(features))
        model = keras.Model(x, domain)
        model.compile(optimizer, "mse")
        model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
        ```

    Raises:
        TypeError: If `strength` is none of the three.
        ValueError: If it is negative or not finite, a schedule comes without a
            step, or a step without a schedule.

    Reference:
        Ganin et al., 2016, "Domain-Adversarial Training of Neural Networks", JMLR
        17(59), arXiv 1505.07818, section 4.2.
    """

    def __init__(
        self,
        strength: float | keras.Variable | Schedule = 1.0,
        step: object = None,
        **kwargs: object,
    ):
        super().__init__(**kwargs)
        if isinstance(strength, dict):
            # Of get_config: the variable of a reloaded layer is its own.
            strength = keras.Variable(strength["variable"], trainable=False)
        check_strength(strength)
        scheduled = is_schedule(strength)
        if scheduled and step is None:
            raise ValueError(f"The strength {strength!r} is a schedule, but {NO_STEP}")
        if step is not None and not scheduled:
            raise ValueError(
                f"`step` has no effect on the strength {strength!r}, which is no "
                "schedule. Leave it out, or pass a schedule such as "
                "kt.optimizers.GaninRampUp(total_steps)."
            )
        if isinstance(strength, keras.Variable):
            strength.trainable = False  # no gradient comes to it
        self.strength = strength
        # Out of Keras's sight, which would save it as a weight of this layer.
        self._read_step = lambda: step
        self.supports_masking = True
        self.built = True

    @property
    def step(self) -> object:
        """What a schedule counts, or None."""
        return self._read_step()

    def __setattr__(self, name: str, value: object) -> None:
        if name == "step":
            self._read_step = lambda: value
        else:
            super().__setattr__(name, value)

    def call(self, inputs: object, training: bool | None = None) -> object:
        """Return the inputs, through which the gradient turns its sign."""
        strength = self.strength
        if is_schedule(strength):
            step = self.step
            if step is None and training:
                raise ValueError(f"'{self.name}' was reloaded, and {NO_STEP}")
            if step is None or training is False:
                return inputs
            strength = strength(step)
        return reverse_gradient(inputs, strength)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the shape of the input."""
        return input_shape

    def get_config(self) -> dict:
        """Return the arguments but the step, which belongs to an optimizer."""
        strength = self.strength
        if isinstance(strength, keras.Variable):
            strength = {"variable": float(ops.convert_to_numpy(strength))}
        elif is_schedule(strength):
            strength = keras.saving.serialize_keras_object(strength)
        return super().get_config() | {"strength": strength}

    @classmethod
    def from_config(cls, config: dict) -> GradientReversal:
        """Return the layer of `get_config`; one with a schedule awaits its step."""
        strength = config["strength"]
        if not isinstance(strength, dict) or "variable" in strength:
            return cls(**config)
        layer = cls(**config | {"strength": 1.0})
        layer.strength = keras.saving.deserialize_keras_object(strength)
        return layer


def reverse_gradient(x: object, strength: object) -> object:
    """Return `x`, whose gradient is multiplied by minus a number or scalar tensor."""

    @ops.custom_gradient
    def identity(x: object, strength: object) -> tuple:
        def gradient(*args: object, upstream: object = None) -> tuple:
            if upstream is None:  # TensorFlow passes it by position, JAX by name
                (upstream,) = args
            return -ops.cast(strength, upstream.dtype) * upstream, None

        return x, gradient

    return identity(x, ops.convert_to_tensor(strength))


def is_schedule(strength: object) -> bool:
    """Return whether a strength is a function of the step."""
    return callable(strength) and not isinstance(strength, keras.Variable)


def check_strength(strength: object) -> None:
    """Check that a strength is a number from 0, a scalar variable or a schedule.

    Raises:
        TypeError: If it is none of them.
        ValueError: If it is negative, not finite or no scalar.
    """
    if is_schedule(strength):
        return
    variable = isinstance(strength, keras.Variable)
    if not variable and not is_number(strength):
        raise TypeError(
            f"strength is {strength!r}. Pass a number, a keras.Variable, or a schedule "
            "such as kt.optimizers.GaninRampUp(total_steps)."
        )
    if variable and tuple(strength.shape):
        raise ValueError(
            f"strength is a variable of shape {tuple(strength.shape)}. It is one "
            "number for all of the gradient: a variable of shape ()."
        )
    value = float(ops.convert_to_numpy(strength)) if variable else strength
    number("strength", value, 0, why="the layer turns the sign itself")
