"""What Keras cannot train on several replicas, said before training."""

from typing import Any

import keras

from keras_transfer import _keras

ISSUE = "https://github.com/keras-team/keras/issues/"
# Setting of an optimizer, and what to do without it.
SETTINGS = {
    "gradient_accumulation_steps": "Leave it out; several replicas hold a larger batch",
    "ema_overwrite_frequency": "Leave it out; at the end of fit() the averages come in",
}


def check(model: keras.Model) -> None:
    """Raise an error if `model`, as compiled, cannot be trained where it stands.

    On several replicas stock keras 3.15 fails inside the first step, in words that do
    not say why; on a strategy that it does not know, it fails or trains on one device
    only. `fine_tune` and `GradualUnfreezing` call this themselves.

    Args:
        model: A compiled model.

    Raises:
        ValueError: If the model was made under a ParameterServerStrategy, or a
            `keras.distribution` is set on the TensorFlow backend; or, on several
            replicas, if it has steps_per_execution above 1, jit_compile=True on CPUs,
            or an optimizer with gradient_accumulation_steps or
            ema_overwrite_frequency. The message names the issue of Keras.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(gradient_accumulation_steps=2), "mse")
        kt.distribute.check(model)  # one replica: nothing to say
        ```

    Reference:
        Issues 20582 (accumulation, overwriting averages) and 19246
        (steps_per_execution) of keras-team/keras.
    """
    if keras.backend.backend() != "tensorflow":
        return
    if keras.distribution.distribution() is not None:
        raise ValueError(
            "A keras.distribution is set. On the TensorFlow backend Keras would train "
            "on one device only, and say nothing. Call "
            "keras.distribution.set_distribution(None) and make the model in the scope "
            "of a tf.distribute strategy: keras_transfer.distribute.connect()."
        )
    strategy = model.distribute_strategy
    if _has_parameter_servers(strategy):
        raise ValueError(
            "The model was made under a ParameterServerStrategy. Keras 3 does not "
            "drive its ClusterCoordinator, so fit() cannot run. Use "
            "keras_transfer.distribute.multi_worker() instead."
        )
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return
    check_settings(model.optimizer, replicas)
    if model.steps_per_execution > 1:
        raise ValueError(
            f"steps_per_execution={model.steps_per_execution} fails in Keras's fit() "
            f"on {replicas} replicas ({ISSUE}19246). Call compile() without it."
        )
    devices = strategy.extended.worker_devices
    if model.jit_compile is True and any("CPU" in device for device in devices):
        raise ValueError(
            f"jit_compile=True fails on {replicas} replicas of which one is a CPU: XLA "
            "cannot reach the weights on another. Call compile(jit_compile=False)."
        )


def check_settings(optimizer: keras.Optimizer | None, replicas: int) -> None:
    """Raise an error if `optimizer` cannot make a step on so many replicas."""
    optimizer = _keras.inner_optimizer(optimizer)
    for name, cure in SETTINGS.items() if replicas > 1 else ():
        value = getattr(optimizer, name, None)
        if value:
            raise ValueError(
                f"{name}={value} of {type(optimizer).__name__} fails in Keras on "
                f"{replicas} replicas ({ISSUE}20582). {cure}."
            )


def _has_parameter_servers(strategy: Any) -> bool:
    import tensorflow as tf

    first = tf.compat.v1.distribute.experimental.ParameterServerStrategy
    return isinstance(strategy, (tf.distribute.ParameterServerStrategy, first))
