"""layout: split the frozen weights of a model over the devices of JAX."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.distribute.data_parallel import device_names
from keras_transfer.distribute.data_parallel import listed

INSTEAD = "Set KERAS_BACKEND=jax before Keras is imported."


def layout(
    model: keras.Model, devices: str | Sequence[str] = "auto"
) -> keras.distribution.ModelParallel:
    """Split the frozen weights of `model` over devices, and copy those that learn.

    A base model that is too large for one device then trains with adapters. Of `n`
    devices, each holds `1 / n` of a frozen kernel or embedding table. It is split along
    its longest axis that `n` divides. Weights that learn, such as the pairs of LoRA,
    biases and small weights are copied to each device. Every device gets the whole
    batch, and XLA inserts the communication. The results equal those of one device,
    except for rounding.

    Call `layout` on JAX, after the adapters are attached and before `fit`. It sets
    `keras.distribution`, moves the weights and those of a built optimizer, and prints
    the memory that each device needs. A new model of this process is copied to each
    device, until you call `layout` on it or end the distribution with
    `keras.distribution.set_distribution(None)`.

    Args:
        model: A built model with frozen weights.
        devices: String "auto", "tpu", "gpu" or "cpu", or a list of at least two device
            names, such as `["gpu:0", "gpu:1"]`. Defaults to "auto", which takes all
            devices of the kind that JAX prefers.

    Returns:
        The `keras.distribution.ModelParallel` that was set.

    Raises:
        ValueError: If `model` is not built or has no frozen weight that can be split,
            if there is only one device, or if a device does not exist. The model and
            the distribution are then unchanged.
        NotImplementedError: If Keras does not run on JAX.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        base = keras.Sequential([keras.Input((8,)), keras.layers.Dense(64)])
        model = kt.models.TransferClassifier(base, num_classes=2)
        kt.adapters.LoRA(rank=2, targets="all-linear").attach(model)  # freezes the base
        several = len(keras.distribution.list_devices()) > 1
        if keras.backend.backend() == "jax" and several:
            kt.distribute.layout(model)
        ```

    Reference:
        Keras's guide "Distributed training with Keras 3". Shoeybi et al. 2019,
        Megatron-LM, arXiv:1909.08053, splits weights in this way.
    """
    _keras.check_backend("jax", "kt.distribute.layout", INSTEAD)
    names = device_names(devices)
    if len(names) < 2:
        raise ValueError(
            f"There is only the device {names[0]}, so the weights cannot be split. "
            "Pass two devices or more, or leave out this call."
        )
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so it has no weights to split. "
            "Call it on a batch first."
        )
    axes = {id(x): _axis(x, len(names)) for x in model.variables if not x.trainable}
    split = [x for x in model.variables if axes.get(id(x)) is not None]
    if not split:
        raise ValueError(
            f"The model {model.name!r} has no frozen weight that {len(names)} devices "
            "can share. Freeze its base first, for example with kt.adapters.LoRA(), or "
            "use kt.distribute.connect(), which shares the batch."
        )
    mesh = keras.distribution.DeviceMesh((1, len(names)), ("batch", "model"), names)
    distribution = keras.distribution.ModelParallel(
        layout_map=keras.distribution.LayoutMap(mesh),
        batch_dim_name="batch",
        auto_shard_dataset=False,
    )
    keras.distribution.set_distribution(distribution)
    optimizer = getattr(model, "optimizer", None)
    others = optimizer.variables if optimizer else []
    for variable in [*_keras.all_variables(model), *others]:
        places = [None] * len(variable.shape)
        if axes.get(id(variable)) is not None:
            places[axes[id(variable)]] = "model"
        _keras.set_layout(variable, keras.distribution.TensorLayout(places, mesh))
    _keras.forget_traces(model)
    frozen, total = _megabytes(split), _megabytes(model.variables)
    print(
        f"keras_transfer: {len(names)} devices on JAX, {listed(names)}. Each one holds "
        f"{frozen / len(names):.3g} MB of {frozen:.3g} MB of frozen weights, and "
        f"{total - frozen:.3g} MB of other weights."
    )
    return distribution


def _axis(variable: keras.Variable, count: int) -> int | None:
    """Return the longest axis that `count` divides, or None for a small variable."""
    shape = variable.shape
    if len(shape) < 2:
        return None
    lengths = [length if length % count == 0 else 0 for length in shape]
    return int(np.argmax(lengths)) if max(lengths) else None


def _megabytes(variables: Sequence[keras.Variable]) -> float:
    return sum(np.prod(x.shape) * _bytes(x) for x in variables) / 2**20


def _bytes(variable: keras.Variable) -> int:
    return variable.value.dtype.itemsize
