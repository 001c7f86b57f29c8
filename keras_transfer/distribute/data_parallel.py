"""Training on the devices of this machine on JAX: shares of the batch, and layouts."""

from collections.abc import Sequence

import keras

from keras_transfer import _keras


class DataParallel(keras.distribution.DataParallel):
    """Keras's DataParallel, with the attribute of a strategy of TensorFlow."""

    @property
    def num_replicas_in_sync(self) -> int:
        """The number of devices that share a batch."""
        return self.device_mesh.shape[0]


def data_parallel(devices: str | Sequence[str] = "auto") -> DataParallel:
    """Set and return a distribution of batches over devices, and print their names.

    See `kt.distribute.connect`, which calls this function on JAX.
    """
    names = device_names(devices)
    distribution = DataParallel(devices=names, auto_shard_dataset=False)
    keras.distribution.set_distribution(distribution)
    _keras.replicate_short_batches()
    replicas = "one device" if len(names) == 1 else f"{len(names)} devices"
    print(f"keras_transfer: {replicas} on JAX, DataParallel with {listed(names)}")
    return distribution


def device_names(devices: str | Sequence[str]) -> list[str]:
    """Return the names of the devices of JAX, of the first kind there is for "auto".

    Raises:
        ValueError: If a device does not exist or is named twice.
    """
    found = keras.distribution.list_devices()  # of the kind that JAX prefers
    kind = found[0].split(":")[0]
    if isinstance(devices, str):
        if devices in ("auto", kind):
            return found
        if devices == "cpu":
            return keras.distribution.list_devices("cpu")[:1]
        raise ValueError(
            f"devices={devices!r}, but JAX has only {found}. Install JAX for this kind "
            f"of device (pip install 'jax[{_extra(devices)}]'), or pass devices='auto'."
        )
    names = [name.lower() for name in devices]
    if not names or len(set(names)) < len(names) or not set(names) <= set(found):
        raise ValueError(
            f"devices={list(devices)} must be different devices of this machine. The "
            f"devices that JAX has are {found}."
        )
    return names


def listed(names: list[str]) -> str:
    """Return the first names of devices, for a line of text."""
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _extra(kind: str) -> str:
    return "cuda12" if kind == "gpu" else kind
