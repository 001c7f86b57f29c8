"""connect: the TensorFlow strategy for the accelerators of this machine."""

import importlib.util
import os
import pathlib
from collections.abc import Sequence

import tensorflow as tf

from keras_transfer import _keras
from keras_transfer.distribute.data_parallel import data_parallel
from keras_transfer.distribute.data_parallel import DataParallel
from keras_transfer.distribute.multi_worker import multi_worker
from keras_transfer.distribute.multi_worker import read_cluster

KINDS = ("auto", "tpu", "gpu", "cpu")
TPU_VARIABLES = ("TPU_NAME", "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS")


def connect(
    devices: str | Sequence[str] = "auto", *, tpu: str | None = None
) -> tf.distribute.Strategy | DataParallel:
    """Return the strategy for the available accelerators, and print its name.

    `connect` takes the first of these that is available:

    1. several workers, if TF_CONFIG names them (`multi_worker`);
    2. a TPU;
    3. several GPUs (`tf.distribute.MirroredStrategy`);
    4. one GPU or the CPU, with TensorFlow's default strategy. Its scope has no effect.

    The same script then runs on a laptop, on Colab and on several GPUs. Inside
    `with strategy.scope():`, build the model, attach adapters and compile. Call `fit`
    outside the scope.

    `batch_size` is the batch size of all replicas together. With float16 on several
    replicas, all replicas skip a step if one overflows; `connect` fixes a Keras bug
    for this. `check` lists what Keras cannot do on several replicas.

    On JAX, `connect` takes all devices of the kind that JAX prefers: TPU, GPU or CPU.
    It sets `keras.distribution.DataParallel` for the whole process and returns it, with
    `scope` and `num_replicas_in_sync` like a strategy, so that the same script runs.
    Make the model after `connect`. Statistics of BatchNormalization, norms of gradients
    and losses are those of the whole batch, so they equal one device. A batch that the
    devices cannot share equally, such as the last one, is copied to each of them.

    The TPU support (Colab, a TPU VM, or a name or address) follows TensorFlow's
    documentation and was never run on a TPU. It needs TensorFlow for TPUs
    (`pip install tensorflow-tpu`), which may be one minor version behind.

    Args:
        devices: String "auto", "tpu", "gpu" or "cpu", or a list of device names, one
            for each replica, such as `["GPU:0", "GPU:2"]`. Defaults to "auto".
        tpu: String, the name or address of a TPU, or "local" for a TPU in this
            machine. Defaults to `None`, which reads the environment variables of
            Colab, Kubernetes and TPU VMs.

    Returns:
        A `tf.distribute.Strategy`, or on JAX a `keras.distribution.DataParallel`. Its
        `num_replicas_in_sync` is the number of replicas.

    Raises:
        ValueError: If `devices` is unknown, a requested device does not exist, or
            `tpu` is passed together with other devices.
        NotImplementedError: If TF_CONFIG names several workers on JAX.
        RuntimeError: If there is a TPU, but TensorFlow cannot connect to it.

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
            f"devices={devices!r} is unknown. Pass one of {list(KINDS)}, or a list of "
            "devices such as ['GPU:0', 'GPU:1']."
        )
    if tpu is not None and devices not in ("auto", "tpu"):
        raise ValueError(
            f"tpu={tpu!r} has no effect with devices={devices!r}. Leave out one of "
            "the two."
        )
    if _keras.on_jax():
        _check_jax(tpu)
        return data_parallel(devices)
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
                "devices='gpu', but TensorFlow finds no GPU. Install the GPU libraries "
                "with pip install 'tensorflow[and-cuda]' (on Colab, choose a GPU "
                "runtime), or pass devices='auto'."
            )
        strategy = _on(names) if len(names) > 1 else tf.distribute.get_strategy()
    _keras.fix_loss_scale()
    print(describe(strategy))
    return strategy


def _check_jax(tpu: str | None) -> None:
    if tpu is not None:
        raise ValueError(
            f"tpu={tpu!r} has no effect on JAX, which finds the TPU of this machine "
            "itself. Leave it out."
        )
    if _several_workers():
        raise NotImplementedError(
            "TF_CONFIG names several workers, which needs the TensorFlow backend, but "
            "the backend is jax. Unset TF_CONFIG to train on the devices of this "
            "machine, or set KERAS_BACKEND=tensorflow."
        )


def describe(strategy: tf.distribute.Strategy) -> str:
    """Return one line about the devices of `strategy`."""
    count, kind = strategy.num_replicas_in_sync, type(strategy).__name__
    if kind.startswith("_Default"):
        where = (_names("GPU") or _names("CPU"))[0]
        return f"keras_transfer: one replica on {where}, TensorFlow's default strategy"
    if kind == "CollectiveAllReduceStrategy":
        kind = "MultiWorkerMirroredStrategy"
    names = [_short(device) for device in strategy.extended.worker_devices]
    where = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    here = " of this worker" if len(names) < count else ""
    replicas = "one replica" if count == 1 else f"{count} replicas"
    return f"keras_transfer: {replicas}, {kind} with {where}{here}"


def find_tpu() -> str | None:
    """Return the address of the TPU from the environment, or None."""
    address = os.environ.get("COLAB_TPU_ADDR")
    if address:
        return f"grpc://{address}"
    for name in TPU_VARIABLES:
        if os.environ.get(name):
            return os.environ[name]
    chips = [*pathlib.Path("/dev").glob("accel[0-9]*")]
    chips += pathlib.Path("/dev/vfio").glob("[0-9]*")
    # Other devices can have these names too, but only TPU machines have libtpu.
    return "local" if chips and importlib.util.find_spec("libtpu") else None


def _several_workers() -> bool:
    cluster, _, _ = read_cluster()
    return sum(len(cluster.get(kind, ())) for kind in ("chief", "worker")) > 1


def _on_tpu(address: str | None) -> tf.distribute.TPUStrategy:
    if address is None:
        raise ValueError(
            "devices='tpu', but no TPU was found: this machine has no TPU, and none of "
            f"the variables COLAB_TPU_ADDR, {', '.join(TPU_VARIABLES)} is set. On "
            "Colab, choose a TPU runtime. Elsewhere pass tpu=name or tpu='local'."
        )
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(address)
        return tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, RuntimeError, ValueError, ImportError) as error:
        raise RuntimeError(
            f"There is a TPU at {address!r}, but TensorFlow {tf.__version__} cannot "
            f"connect to it: {error}. Install TensorFlow for TPUs (pip install "
            "tensorflow-tpu) and start a new process, or use connect('cpu')."
        ) from error


def _on(names: list[str]) -> tf.distribute.Strategy:
    available = _names("GPU") + _names("CPU")
    unknown = [name for name in names if name not in available]
    if unknown or not names or len(set(names)) < len(names):
        raise ValueError(
            f"devices={names} must be different devices of this machine. The devices "
            f"of this machine are {available}."
        )
    if len(names) == 1:
        return tf.distribute.OneDeviceStrategy(names[0])
    return tf.distribute.MirroredStrategy(names)


def _names(kind: str) -> list[str]:
    return [_short(device.name) for device in tf.config.list_logical_devices(kind)]


def _short(name: str) -> str:
    """Return "GPU:0" for "/physical_device:GPU:0" or a longer name."""
    return ":".join(name.split(":")[-2:])
