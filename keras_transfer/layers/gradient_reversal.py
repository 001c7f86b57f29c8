"""GradientReversal: identity in the forward pass, reversed gradient in the backward."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer._arguments import is_number
from keras_transfer._arguments import number

Schedule = Callable[[object], object]

NO_STEP = (
    "the layer has no `step`. Pass `step=optimizer.iterations`, with the optimizer "
    "that trains the model. After loading, set `layer.step = "
    "model.optimizer.iterations`."
)


@keras.saving.register_keras_serializable(package="keras_transfer")
class GradientReversal(keras.layers.Layer):
    """Return the input unchanged and multiply the gradient by minus the strength.

    Put the layer between a feature extractor and a domain classifier. The classifier
    is trained to distinguish the domains. The reversed gradient trains the features
    to make this impossible. With strength s:

        forward   y = x
        backward  dL/dx = -s dL/dy

    The output has exactly the bits of the input in each dtype, infinities included.
    The common formula `x * (-s) + stop_gradient(x * (1 + s))` is off by up to 0.38 in
    bfloat16. `kt.models.DANN` contains the reversal. Use this layer to build a
    similar network by hand.

    Args:
        strength: Number of 0 or more, without a unit; or a scalar `keras.Variable`,
            which is read in each step and saved with the layer; or a schedule, a
            function of the step such as `kt.optimizers.GaninRampUp`. Defaults to 1.0.
        step: Variable that counts the steps for a schedule, `optimizer.iterations`.
            The graph reads the variable, so the strength is also right in a resumed
            training and with `steps_per_execution`. The step is not saved: after
            loading, set `layer.step = model.optimizer.iterations` before you train.
            With a schedule, the gradient is not reversed in inference
            (`training=False`), so an exported model does not need the optimizer.
            Defaults to `None`.
        **kwargs: `name` and `dtype`, as for every layer.

    Input shape:
        Any.

    Output shape:
        The shape of the input.

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
        TypeError: If `strength` is not a number, a variable or a schedule.
        ValueError: If `strength` is negative, not finite or not a scalar, if a
            schedule has no step, or if `step` is passed without a schedule.
        NotImplementedError: In `fit` on JAX, if `step` belongs to an optimizer.

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
            # From get_config: a loaded layer makes a new variable.
            strength = keras.Variable(strength["variable"], trainable=False)
        check_strength(strength)
        scheduled = is_schedule(strength)
        if scheduled and step is None:
            raise ValueError(f"The strength {strength!r} is a schedule, but {NO_STEP}")
        if step is not None and not scheduled:
            raise ValueError(
                f"`step` has no effect on the strength {strength!r}, which is not a "
                "schedule. Leave out `step`, or pass a schedule such as "
                "kt.optimizers.GaninRampUp(total_steps)."
            )
        if isinstance(strength, keras.Variable):
            strength.trainable = False  # it gets no gradient
        self.strength = strength
        # Keras would save an attribute as a weight of this layer.
        self._read_step = lambda: step
        self.supports_masking = True
        self.built = True

    @property
    def step(self) -> object:
        """The variable that counts the steps for a schedule, or None."""
        return self._read_step()

    def __setattr__(self, name: str, value: object) -> None:
        if name == "step":
            self._read_step = lambda: value
        else:
            super().__setattr__(name, value)

    def call(self, inputs: object, training: bool | None = None) -> object:
        """Return the inputs; the gradient is reversed in the backward pass."""
        strength = self.strength
        if is_schedule(strength):
            step = self.step
            if step is None and training:
                raise ValueError(f"'{self.name}' was loaded, and {NO_STEP}")
            if step is None or training is False:
                return inputs
            if isinstance(step, keras.Variable) and not _keras.has_value(step):
                raise NotImplementedError(
                    f"'{self.name}' reads the steps of the optimizer, which a step on "
                    "JAX cannot do. Use kt.models.DANN, which counts the steps "
                    "itself, or pass a number as strength."
                )
            strength = strength(step)
        return reverse_gradient(inputs, strength)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the shape of the input."""
        return input_shape

    def get_config(self) -> dict:
        """Return the arguments except the step, which belongs to an optimizer."""
        strength = self.strength
        if isinstance(strength, keras.Variable):
            strength = {"variable": float(ops.convert_to_numpy(strength))}
        elif is_schedule(strength):
            strength = keras.saving.serialize_keras_object(strength)
        return super().get_config() | {"strength": strength}

    @classmethod
    def from_config(cls, config: dict) -> GradientReversal:
        """Return the layer from its config; with a schedule, set its `step` after."""
        strength = config["strength"]
        if not isinstance(strength, dict) or "variable" in strength:
            return cls(**config)
        layer = cls(**config | {"strength": 1.0})
        layer.strength = keras.saving.deserialize_keras_object(strength)
        return layer


def reverse_gradient(x: object, strength: object) -> object:
    """Return `x` and multiply its gradient by minus the strength, a scalar."""

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
    """Check that a strength is a number of 0 or more, a scalar variable or a schedule.

    Raises:
        TypeError: If the strength has another type.
        ValueError: If the strength is negative, not finite or not a scalar.
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
            f"strength is a variable of shape {tuple(strength.shape)}, but the layer "
            "multiplies the whole gradient by one number. Pass a variable of shape ()."
        )
    value = float(ops.convert_to_numpy(strength)) if variable else strength
    number("strength", value, 0, why="the layer changes the sign itself")
