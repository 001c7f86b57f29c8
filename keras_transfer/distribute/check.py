"""check: report before training what Keras cannot train on several replicas."""

from typing import Any

import keras

from keras_transfer import _keras

ISSUE = "https://github.com/keras-team/keras/issues/"
# Each setting of an optimizer that fails, and the advice.
SETTINGS = {
    "gradient_accumulation_steps": (
        "Leave it out: several replicas can take a larger batch"
    ),
    "ema_overwrite_frequency": (
        "Leave it out: Keras copies the averages to the weights at the end of fit()"
    ),
}


def check(model: keras.Model) -> None:
    """Raise an error if Keras cannot train the compiled `model` on its strategy.

    On several replicas stock keras 3.15 fails in the first step, with an error that
    does not name the cause. On a strategy without support, Keras fails or trains on
    one device only. `fine_tune` and `GradualUnfreezing` call this function.

    Args:
        model: A compiled `keras.Model`.

    Raises:
        ValueError: If the model was made under a ParameterServerStrategy, or a
            `keras.distribution` is set on the TensorFlow backend. On several replicas,
            the function also raises this error if `steps_per_execution` is above 1, if
            `jit_compile=True` on CPUs, or if the optimizer has
            `gradient_accumulation_steps` or `ema_overwrite_frequency`. The message
            names the Keras issue, if the issue has a number. On JAX, if the model was
            made before `keras.distribution` was set.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(gradient_accumulation_steps=2), "mse")
        kt.distribute.check(model)  # no error, because there is one replica
        ```

    Reference:
        Issues 20582 (accumulation, overwriting averages) and 19246
        (steps_per_execution) of keras-team/keras.
    """
    if keras.backend.backend() != "tensorflow":
        _check_devices(model)
        return
    if keras.distribution.distribution() is not None:
        raise ValueError(
            "A keras.distribution is set. On the TensorFlow backend Keras would train "
            "on one device only, without a warning. Call "
            "keras.distribution.set_distribution(None) and make the model in the scope "
            "of a tf.distribute strategy: keras_transfer.distribute.connect()."
        )
    strategy = model.distribute_strategy
    if _has_parameter_servers(strategy):
        raise ValueError(
            "The model was made under a ParameterServerStrategy. Keras 3 does not "
            "support its ClusterCoordinator, so fit() cannot run. Use "
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
            f"jit_compile=True fails on {replicas} replicas if one of them is a CPU, "
            "because XLA cannot read the weights on another device. Call "
            "compile(jit_compile=False)."
        )


def _check_devices(model: keras.Model) -> None:
    outside = _keras.on_other_devices(_keras.all_variables(model))
    if outside:
        raise ValueError(
            f"The model was made before the devices were chosen: {outside[0].path} is "
            "not on all devices of keras.distribution. Make or load the model after "
            "keras_transfer.distribute.connect()."
        )


def check_settings(optimizer: keras.Optimizer | None, replicas: int) -> None:
    """Raise an error if `optimizer` cannot make a step on this number of replicas."""
    optimizer = _keras.inner_optimizer(optimizer)
    for name, advice in SETTINGS.items() if replicas > 1 else ():
        value = getattr(optimizer, name, None)
        if value:
            raise ValueError(
                f"{name}={value} of {type(optimizer).__name__} fails in Keras on "
                f"{replicas} replicas ({ISSUE}20582). {advice}."
            )


def _has_parameter_servers(strategy: Any) -> bool:
    import tensorflow as tf

    first = tf.compat.v1.distribute.experimental.ParameterServerStrategy
    return isinstance(strategy, (tf.distribute.ParameterServerStrategy, first))
