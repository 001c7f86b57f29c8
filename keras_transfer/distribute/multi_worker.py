"""Several workers: a strategy that works with stock Keras, and paths for workers."""

import json
import os
import pathlib
import shutil
import tempfile

import keras
import tensorflow as tf

from keras_transfer import _keras

INSTEAD = (
    "Set KERAS_BACKEND=tensorflow, or see keras.distribution.initialize(), which was "
    "not tested with this package."
)


def multi_worker(*, seed: int | None = 0) -> tf.distribute.MultiWorkerMirroredStrategy:
    """Return a strategy over the workers of TF_CONFIG that Keras can train with.

    A worker is a process, usually one on each machine. All workers run the same
    script. The script first makes the strategy, then builds and compiles the model in
    the scope of the strategy. All workers call `fit`, `evaluate` and `predict` with
    the same arguments. The batch size is the batch size of all workers together. Each
    worker takes its share of every batch, from arrays and from a `tf.data.Dataset`.
    The results equal the results of one process, except for rounding.

    In stock keras 3.15 `fit` fails under this strategy because of two bugs
    (keras-team/keras#20585). This function fixes both in this process if Keras has
    them. Other strategies still run Keras's own code.

    If a worker dies, the next step of the other workers raises `UnavailableError`
    after some seconds. TensorFlow cannot take a worker back into a running cluster.
    End all processes, start them again, and continue from a backup (see
    `worker_path`). BatchNormalization computes its statistics on the share of each
    worker, and Keras saves the statistics of the first worker. To change this, see
    `synchronize_batch_norm`.

    Args:
        seed: Integer, passed to `keras.utils.set_random_seed` on every worker, or
            `None` to leave the seed unchanged. Each worker shuffles arrays itself.
            With different seeds, an epoch would use some examples twice and skip
            others. Defaults to 0.

    Returns:
        A `tf.distribute.MultiWorkerMirroredStrategy`. Without TF_CONFIG it has one
        worker, this process, with all its GPUs.

    Raises:
        ValueError: If TF_CONFIG is not a JSON object with the cluster and the task of
            this process, or names a parameter server.
        NotImplementedError: If Keras does not run on TensorFlow.
        RuntimeError: If TensorFlow has already run an operation in this process, so
            the cluster cannot be set up.

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
    _keras.check_backend("tensorflow", "kt.distribute.multi_worker", INSTEAD)
    cluster, _, _ = read_cluster()
    unknown = sorted(set(cluster) - {"chief", "worker", "evaluator"})
    if unknown:
        raise ValueError(
            f"TF_CONFIG names {unknown}, but Keras 3 supports no parameter servers. "
            "Name the processes that train 'worker', and at most one of them 'chief'."
        )
    if seed is not None:
        keras.utils.set_random_seed(seed)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    _keras.fix_workers()
    _keras.fix_loss_scale()
    return strategy


def worker_path(path: str | os.PathLike) -> str:
    """Return the path where this worker writes: `path` itself on the first worker.

    All workers must save, because saving can sum values over the workers. Only the
    file of the first worker counts. Every other worker gets a path with the same name
    in its own temporary folder, which keras_transfer does not remove.

    If `path` is an existing folder, such as a backup, it is copied into the temporary
    folder. All workers then start in the epoch that the first worker has reached, even
    if one was killed between two backups. For this, `path` must be on a disk that all
    workers can read, and you must call this function before `fit`:
    `BackupAndRestore(worker_path("backup"))`.

    Args:
        path: String or path of a file or folder, such as "model.keras", or a pattern
            with {epoch}.

    Returns:
        A string: `path` on the first or only worker, and a temporary path on every
        other worker.

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
    """Return cluster, task type and task index of TF_CONFIG; {} as cluster if unset."""
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
            f"TF_CONFIG={text!r} does not define the task of this process: {error!r}. "
            'Set it to {"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
            '"task": {"type": "worker", "index": 0}}, with another index on each host.'
        ) from error
    return cluster, kind, index
