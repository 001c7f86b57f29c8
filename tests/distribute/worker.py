"""Script of each process of test_multi_worker.py, also used by the test itself.

Run as a script: worker.py TASK FOLDER, with TF_CONFIG set.
"""

import json
import os
import pathlib
import signal
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.distribute.multi_worker import multi_worker
from keras_transfer.distribute.multi_worker import worker_path
from tests import tiny

EPOCHS = 3  # of the run with a kill
KILLED = 1  # at the end of this epoch, before the backup of the second worker


def data():
    """Return 22 examples: two full batches of 8 and a batch of 6."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(22, 6)).astype("float32")
    return x, rng.normal(size=(22, 3)).astype("float32")


def fit(model, epochs=2, **settings):
    settings = dict(batch_size=8, shuffle=False, verbose=0) | settings
    return model.fit(*data(), epochs=epochs, **settings).history


def model_of(name):
    """Return a compiled model; "lora" has an adapter and a discriminative optimizer."""
    model, optimizer = tiny.mlp(), keras.optimizers.Adam(0.01)
    if name == "lora":
        keras.utils.set_random_seed(3)
        kt.adapters.LoRA(rank=2, targets="dense_[01]").attach(model)
        adamw = keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.1)
        optimizer = kt.optimizers.discriminative(adamw, model, layer_decay=0.5)
    model.compile(optimizer, "mse", metrics=["mae"])
    return model


def trainings(strategy):
    """Return the losses and weights of each kind of model, trained with `strategy`."""
    found = {}
    for name in ("lora", "gradual"):
        with strategy.scope():
            model = model_of(name)
        unfreezing = (
            [kt.callbacks.GradualUnfreezing(model)] if name == "gradual" else []
        )
        x, y = data()
        history = fit(model, 3, callbacks=unfreezing, validation_data=(x, y))
        found[name] = {
            "history": {k: v for k, v in history.items() if k != "seconds"},
            "weights": weights(model),
        }
    found[name] |= {
        "evaluated": model.evaluate(x, y, batch_size=8, verbose=0),
        "predicted": model.predict(x, batch_size=8, verbose=0).tolist(),
    }
    return found, model


def weights(model):
    return [each.tolist() for each in model.get_weights()]


def shuffled(strategy):
    """Return the sum of the inputs of two workers in one shuffled epoch."""
    with strategy.scope():
        model = keras.Sequential([keras.Input((22,)), keras.layers.Dense(1)])
        zeros = keras.initializers.Zeros()
        model.layers[0].kernel.assign(zeros((22, 1)))
        # The gradient of a linear loss is the mean of the inputs.
        model.compile(keras.optimizers.SGD(1.0), lambda y, z: z)
    model.fit(np.eye(22), np.zeros((22, 1)), batch_size=2, verbose=0)
    return model.get_weights()[0][:, 0].tolist()


def stock_faults(strategy, stock):
    """Return the error messages of Keras's own functions."""
    build, reduce = stock
    with strategy.scope():
        model = model_of("adam")
    from keras.src.backend.tensorflow.trainer import TFEpochIterator

    x, y = data()
    batches = TFEpochIterator(strategy, x, y, batch_size=8, steps_per_execution=1)
    faults = []
    for call in (
        lambda: build(model, iterator=batches),
        lambda: reduce(tf.constant(1.0), strategy, "auto"),
    ):
        try:
            call()
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            faults.append(str(error))
    return faults


class Kill(keras.callbacks.Callback):
    """Kill this process at the end of an epoch, as an operating system would."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)


def backed_up(strategy, folder, callbacks=()):
    """Train with a backup for each worker, and return the model and its history."""
    with strategy.scope():
        model = model_of("lora")
    path = worker_path(pathlib.Path(folder) / "backup")
    backup = keras.callbacks.BackupAndRestore(path)
    history = fit(model, EPOCHS, callbacks=[*callbacks, backup])
    return model, history


def main(task, folder):
    from keras.src.backend.tensorflow import trainer

    stock = trainer.TensorFlowTrainer._maybe_symbolic_build, trainer.reduce_per_replica
    strategy = multi_worker()
    index = strategy.cluster_resolver.task_id
    out = {"replicas": strategy.num_replicas_in_sync}
    error = None
    if task == "train":
        out["faults"] = stock_faults(strategy, stock)
        vector = tf.constant([float(index), 5.0])
        mean = trainer.reduce_per_replica({"a": vector, "b": 7}, strategy, "auto")
        out["mean"] = [mean["a"].numpy().tolist(), mean["b"]]
        out["trainings"], model = trainings(strategy)
        model.save(worker_path(pathlib.Path(folder) / "model.keras"))
        out["shuffled"] = shuffled(strategy)
        try:
            backed_up(strategy, folder, [Kill()] if index else [])
        except tf.errors.UnavailableError:
            error = "UnavailableError"
        out["error"] = error
    else:
        model, history = backed_up(strategy, folder)
        out["epochs"] = len(history["loss"])
        out["weights"] = weights(model)
        out["iterations"] = int(model.optimizer.iterations.numpy())
    path = pathlib.Path(folder) / f"{task}_{index}.json"
    path.write_text(json.dumps(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
