"""The head of a model trained on features that the rest of it computed once."""

from __future__ import annotations

import pathlib
import time
import warnings
from typing import Any

import keras

from keras_transfer import _keras
from keras_transfer.backbones.feature_cache import cache_features
from keras_transfer.backbones.groups import LayerGroup
from keras_transfer.data.epochs import Epochs
from keras_transfer.fine_tuning.cut_at_head import cut

# What the head does by itself must be what the model does.
STEPS = ("call", "train_step", "test_step", "compute_loss", "compute_metrics")

AUTOTUNE = -1  # that of tf.data


class CachedHead:
    """Fit a head alone, with the loss, metrics and optimizer of the whole model.

    The head holds the layers of the model and its optimizer is the model's own, so
    that the model has learnt when the head has, and training goes on from there.

    Args:
        model: A built and compiled model.
        group: Its last layer group.

    Raises:
        ValueError: If features cannot be cached below the head, with the reason.
    """

    def __init__(self, model: keras.Model, group: LayerGroup) -> None:
        for name in STEPS:
            if getattr(model, name).__module__.partition(".")[0] != "keras":
                raise ValueError(f"{type(model).__name__} has a {name} of its own")
        if _keras.inner_optimizer(model.optimizer).use_ema:
            raise ValueError("the optimizer keeps averages of all weights")
        self.model = model
        self.seconds = 0.0  # of computing features
        with _keras.scope(model):
            self.body, self.head = cut(model, group)

    def features(self, dataset: Any, path: pathlib.Path | None, verbose: int) -> tuple:
        """Return arrays of features, labels and, if there are, sample weights."""
        began = time.perf_counter()
        weighted = len(dataset.element_spec) == 3
        preprocessor = getattr(self.model, "preprocessor", None)
        if preprocessor is not None:
            dataset = dataset.map(preprocessor, num_parallel_calls=AUTOTUNE)
        with warnings.catch_warnings():
            # It may shuffle: the order of this one pass is that of the arrays.
            warnings.filterwarnings("ignore", message="Two passes over the dataset")
            rows = cache_features(self.body, dataset, path, verbose=verbose)
        arrays = next(rows.batch(len(rows)).as_numpy_iterator())
        self.seconds += time.perf_counter() - began
        return arrays if weighted else arrays[:2]

    def fit(
        self, train: Epochs, callbacks: keras.callbacks.CallbackList, **settings: Any
    ) -> None:
        """Fit the head, with callbacks that see the whole model."""
        arguments = _keras.compile_arguments(self.model)
        # What the model has is wrapped for mixed precision, if it is to be.
        arguments |= {"optimizer": self.model.optimizer, "auto_scale_loss": False}
        with _keras.scope(self.model):
            self.head.compile(**arguments)
        self.head.history = None  # it is the model's
        # Both have the metrics that the user made, and Keras resets those of a model
        # only once it has built them.
        self.model.reset_metrics()
        every = callbacks.callbacks
        before = list(every)
        # The first one has logged the seconds of the epoch; the last may have stopped.
        every.insert(1, _Cost(self.seconds))
        every.extend([train.clock, _Stop(self.model, self.head)])
        self.head.fit(train.dataset, callbacks=callbacks, shuffle=False, **settings)
        self.head.reset_metrics()
        every[:] = before


class _Cost(keras.callbacks.Callback):
    """Add the seconds of computing features to those of the first epoch."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs["seconds"] += self.seconds
        self.seconds = 0.0


class _Stop(keras.callbacks.Callback):
    """Stop the fit of the head where a callback stops that of the whole model."""

    def __init__(self, whole: keras.Model, head: keras.Model) -> None:
        super().__init__()
        self.whole = whole
        self.head = head

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.head.stop_training |= self.whole.stop_training

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.head.stop_training |= self.whole.stop_training
