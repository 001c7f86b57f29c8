"""connect: the strategy for whatever accelerators this machine has."""

import importlib.util
import os
import pathlib
from collections.abc import Sequence

import tensorflow as tf

from keras_transfer import _keras
from keras_transfer.distribute.multi_worker import multi_worker
from keras_transfer.distribute.multi_worker import read_cluster

KINDS = ("auto", "tpu", "gpu", "cpu")
TPU_VARIABLES = ("TPU_NAME", "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS")


def connect(
    devices: str | Sequence[str] = "auto", *, tpu: str | None = None
) -> tf.distribute.Strategy:
    """Return the strategy for the accelerators at hand, and print which it is.

    In this order: several workers, if TF_CONFIG names them (`multi_worker`); a TPU;
    several GPUs (`tf.distribute.MirroredStrategy`); one GPU or the CPU, for which
    TensorFlow's default strategy is returned, whose scope changes nothing. So one
    script runs on a laptop, on Colab, and on several GPUs: build, attach adapters to
    and compile the model inside `with strategy.scope():`, and call `fit` outside it.

    `batch_size` is that of all replicas together. On several replicas float16 skips a
    step on all of them if one overflows, for which a fault of Keras is fixed;
    `check` says what Keras cannot do there.

    The way to a TPU (Colab, a TPU VM, or a name or address) is written from
    TensorFlow's documentation; it was not run. It needs TensorFlow for TPUs
    (`pip install tensorflow-tpu`), which may trail by a minor version.

    Args:
        devices: "auto" (default), or "tpu", "gpu" or "cpu" to ask for one kind; or a
            list of devices, one for each replica, such as ["GPU:0", "GPU:2"].
        tpu: Name or address of a TPU, or "local" for one in this machine. Default
            None: found by the environment of Colab, Kubernetes and TPU VMs.

    Returns:
        A `tf.distribute.Strategy`; `num_replicas_in_sync` tells the number of replicas.

    Raises:
        ValueError: If `devices` is unknown, or a device that was asked for is not
            there; if `tpu` is given next to other devices.
        RuntimeError: If a TPU was found and TensorFlow cannot reach it.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        strategy = kt.distribute.connect()
        with strategy.scope():
            model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
            model.compile("sgd", "mse")
        ```

    Reference:
        TensorFlow's guides "Distributed training" and "Use TPUs".
    """
    if isinstance(devices, str) and devices not in KINDS:
        raise ValueError(
            f"devices={devices!r} is unknown. Use one of {list(KINDS)}, or a list of "
            "devices such as ['GPU:0', 'GPU:1']."
        )
    if tpu is not None and devices not in ("auto", "tpu"):
        raise ValueError(
            f"tpu={tpu!r} has no effect next to devices={devices!r}. Leave one out."
        )
    if not isinstance(devices, str):
        strategy = _on(list(devices))
    elif devices == "auto" and _several_workers():
        strategy = multi_worker()
    elif devices == "tpu" or devices == "auto" and (tpu or find_tpu()):
        strategy = _on_tpu(tpu or find_tpu())
    elif devices == "cpu":
        strategy = _on([_names("CPU")[0]])
    else:
        names = _names("GPU")
        if devices == "gpu" and not names:
            raise ValueError(
                "devices='gpu', but TensorFlow sees no GPU. Install its libraries with "
                "pip install 'tensorflow[and-cuda]' (on Colab, choose a GPU runtime), "
                "or use devices='auto'."
            )
        strategy = _on(names) if len(names) > 1 else tf.distribute.get_strategy()
    _keras.fix_loss_scale()
    print(describe(strategy))
    return strategy


def describe(strategy: tf.distribute.Strategy) -> str:
    """Return in one line what `strategy` trains on."""
    count, kind = strategy.num_replicas_in_sync, type(strategy).__name__
    if kind.startswith("_Default"):
        where = (_names("GPU") or _names("CPU"))[0]
        return f"keras_transfer: one replica on {where}, TensorFlow's default strategy"
    if kind == "CollectiveAllReduceStrategy":
        kind = "MultiWorkerMirroredStrategy"
    names = [_short(each) for each in strategy.extended.worker_devices]
    where = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    here = " of this worker" if len(names) < count else ""
    replicas = "one replica" if count == 1 else f"{count} replicas"
    return f"keras_transfer: {replicas}, {kind} with {where}{here}"


def find_tpu() -> str | None:
    """Return the address of the TPU that the environment names, or None."""
    address = os.environ.get("COLAB_TPU_ADDR")
    if address:
        return f"grpc://{address}"
    for name in TPU_VARIABLES:
        if os.environ.get(name):
            return os.environ[name]
    chips = [*pathlib.Path("/dev").glob("accel[0-9]*")]
    chips += pathlib.Path("/dev/vfio").glob("[0-9]*")
    # Other devices than TPUs may stand under these names; their library does not.
    return "local" if chips and importlib.util.find_spec("libtpu") else None


def _several_workers() -> bool:
    cluster, _, _ = read_cluster()
    return sum(len(cluster.get(kind, ())) for kind in ("chief", "worker")) > 1


def _on_tpu(address: str | None) -> tf.distribute.TPUStrategy:
    if address is None:
        raise ValueError(
            "devices='tpu', but nothing names a TPU: none of COLAB_TPU_ADDR, "
            f"{', '.join(TPU_VARIABLES)} is set, and none is in this machine. On Colab "
            "choose a TPU runtime; else pass tpu=name or tpu='local'."
        )
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(address)
        return tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, RuntimeError, ValueError, ImportError) as error:
        raise RuntimeError(
            f"There is a TPU at {address!r}, but TensorFlow {tf.__version__} cannot "
            f"reach it: {error}. It needs TensorFlow for TPUs (pip install "
            "tensorflow-tpu) and a fresh process. connect('cpu') does without it."
        ) from error


def _on(names: list[str]) -> tf.distribute.Strategy:
    known = _names("GPU") + _names("CPU")
    unknown = [name for name in names if name not in known]
    if unknown or not names or len(set(names)) < len(names):
        raise ValueError(
            f"devices={names} must be distinct devices of this machine, which are "
            f"{known}."
        )
    if len(names) == 1:
        return tf.distribute.OneDeviceStrategy(names[0])
    return tf.distribute.MirroredStrategy(names)


def _names(kind: str) -> list[str]:
    return [_short(each.name) for each in tf.config.list_logical_devices(kind)]


def _short(name: str) -> str:
    """Return "GPU:0" of "/physical_device:GPU:0" or a longer name."""
    return ":".join(name.split(":")[-2:])
