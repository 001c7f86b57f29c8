"""Several workers: a strategy under which stock Keras trains, and each one's files."""

import json
import os
import pathlib
import shutil
import tempfile

import keras
import tensorflow as tf

from keras_transfer import _keras


def multi_worker(*, seed: int | None = 0) -> tf.distribute.MultiWorkerMirroredStrategy:
    """Return a strategy over the workers of TF_CONFIG, under which Keras can train.

    Every worker, a process on its own machine, runs the same script: it makes the
    strategy first of all, builds and compiles the model inside its scope, and calls
    `fit`, `evaluate` and `predict` with the same arguments as the others. A batch is
    that of all workers together. Of arrays, and of a `tf.data.Dataset`, each takes its
    share of every batch; the results are those of one process, to rounding.

    In stock keras 3.15 `fit` raises under this strategy, for two faults
    (keras-team/keras#20585). They are fixed in this process while Keras has them;
    whatever runs under another strategy goes through Keras's own code.

    If a worker dies, the next step of the others raises `UnavailableError`, some
    seconds later. TensorFlow does not take a worker back into a running cluster: let
    all processes end, start all of them again, and go on from a backup (see
    `worker_path`). BatchNormalization takes its statistics from each worker's share
    alone, and those of the first worker are saved: see `synchronize_batch_norm`.

    Args:
        seed: Given to `keras.utils.set_random_seed` on every worker. Keras shuffles
            arrays on each worker by itself, so with seeds that differ an epoch would
            see some examples twice and others not at all. None leaves the seed to you.

    Returns:
        A `tf.distribute.MultiWorkerMirroredStrategy`. Without TF_CONFIG it has one
        worker, this process, with all its GPUs.

    Raises:
        ValueError: If TF_CONFIG is not a JSON object with the cluster and the task of
            this process, or names a parameter server.
        RuntimeError: If TensorFlow has run something already, before the cluster could
            be set up.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        # TF_CONFIG='{"cluster": {"worker": ["host0:2222", "host1:2222"]},
        #             "task": {"type": "worker", "index": 0}}'
        strategy = kt.distribute.multi_worker()
        with strategy.scope():
            model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
            model.compile("sgd", "mse")
        model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
        model.save(kt.distribute.worker_path("model.keras"))
        ```

    Reference:
        TensorFlow's guide "Multi-worker training with Keras", which was written for
        Keras 2.
    """
    cluster, _, _ = read_cluster()
    odd = sorted(set(cluster) - {"chief", "worker", "evaluator"})
    if odd:
        raise ValueError(
            f"TF_CONFIG names {odd}. Keras 3 has no parameter servers; name the "
            "processes that train as 'worker', and at most one of them as 'chief'."
        )
    if seed is not None:
        keras.utils.set_random_seed(seed)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    _keras.fix_workers()
    _keras.fix_loss_scale()
    return strategy


def worker_path(path: str | os.PathLike) -> str:
    """Return where this worker is to write what the first worker writes to `path`.

    All workers have to save, for saving may add up over the workers, but only the
    first one's file counts. It gets `path` itself; each other gets a path of the same
    name in a temporary folder of its own, which is removed by nobody but the system.

    The folder of a backup is copied there, so that all workers begin in the epoch that
    the first one has reached, even if one was killed between two backups. For that,
    `path` lies on a disk that all workers see, and this is called before `fit`:
    `BackupAndRestore(worker_path("backup"))`.

    Args:
        path: A file or folder, such as "model.keras", or a pattern with {epoch}.

    Returns:
        `path` as a string, on the first worker and where there is only one.

    Raises:
        ValueError: If TF_CONFIG is not a JSON object with the cluster and the task of
            this process.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        backup = keras.callbacks.BackupAndRestore(kt.distribute.worker_path("backup"))
        assert kt.distribute.worker_path("model.keras") == "model.keras"
        ```

    Reference:
        TensorFlow's guide "Multi-worker training with Keras", section "Model saving
        and loading".
    """
    cluster, kind, index = read_cluster()
    if not cluster or (kind, index) == ("chief" if "chief" in cluster else "worker", 0):
        return os.fspath(path)
    path = pathlib.Path(path)
    own = pathlib.Path(tempfile.mkdtemp(prefix=f"{kind}_{index}_")) / path.name
    if path.is_dir():
        shutil.copytree(path, own)
    return str(own)


def read_cluster() -> tuple[dict, str, int]:
    """Return cluster, task type and task index of TF_CONFIG; {} if it is not set."""
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        config = json.loads(text)
        cluster = dict(config.get("cluster", {}))
        task = config["task"] if cluster else {"type": "worker", "index": 0}
        kind, index = task["type"], int(task["index"])
        if cluster and not 0 <= index < len(cluster[kind]):
            raise IndexError(index)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"TF_CONFIG={text!r} does not say what this process is: {error!r}. It "
            'looks like {"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
            '"task": {"type": "worker", "index": 0}}, with another index on each host.'
        ) from error
    return cluster, kind, index
