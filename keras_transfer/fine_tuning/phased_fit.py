"""One training in two fits: of the head on cached features, then of the whole."""

from __future__ import annotations

import math
import pathlib
import time
import warnings
from typing import Any

import keras

from keras_transfer import _keras
from keras_transfer.backbones.feature_cache import cache_features
from keras_transfer.backbones.groups import LayerGroup
from keras_transfer.data.epochs import Epochs
from keras_transfer.data.epochs import repeated
from keras_transfer.fine_tuning.cut_at_head import cut_at_head
from keras_transfer.fine_tuning.run import Run
from keras_transfer.fine_tuning.stays_finite import StaysFinite

# What the head does by itself must be what the model does.
STEPS = ("call", "train_step", "test_step", "compute_loss", "compute_metrics")

# Logs of GradualUnfreezing, which the bar would write as 0.0000e+00.
TOLD = ("phase", "seconds", "trainable_parameters")

AUTOTUNE = -1  # that of tf.data


class PhasedFit:
    """Fit the model of a run in phases, with callbacks that see a single training.

    Their `model` is the whole model in both fits. Making a PhasedFit sets it.

    Args:
        run: The run. Its model has the optimizer that is to train it.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.head = None
        if run.done < run.head_epochs:
            self.head = CachedHead(run.model, run.groups[-1])
        callbacks = [*run.callbacks, run.clock, run.history]
        if run.folder:
            callbacks.append(run.folder.callback)
        if run.verbose != 0:
            callbacks.append(_Progress())
        if not any(isinstance(x, keras.callbacks.TerminateOnNaN) for x in callbacks):
            callbacks.insert(0, StaysFinite())
        if self.head:
            # GradualUnfreezing logs the seconds of the epoch; the last may stop it.
            callbacks = [_Cost(self.head), *callbacks, _Stop(self.head)]
        self.callbacks = _AcrossFits(
            [run.unfreezing, *callbacks],
            model=run.model,
            verbose=run.verbose,
            epochs=run.epochs,
            steps=run.num_batches,
        )

    def train(self) -> None:
        """Train all epochs that are not done, and tell the callbacks."""
        run = self.run
        run.model.stop_training = False
        self.callbacks.begin()
        done = run.done
        try:
            if done < run.head_epochs and self._fit_head():
                done = run.head_epochs
            if done < run.epochs and not run.model.stop_training:
                self._fit(done)
        except KeyboardInterrupt:
            run.unfreezing.on_train_end()  # or the rate of the phase would stay
            raise
        self.callbacks.end()

    def _fit_head(self) -> bool:
        """Train the head on cached features; return False if there can be none."""
        run = self.run
        try:
            if run.made_labels:
                raise ValueError("the preprocessor may make other labels in each pass")
            self.head.cut()
            train, validation = repeated(run.data, "of training"), None
            if run.validation_data is not None:
                validation = repeated(run.validation_data, "of validation")
        except ValueError as reason:
            if run.verbose:
                print(f"phase 0 runs the whole model in each epoch: {reason}")
            return False
        if run.verbose:
            print("phase 0 runs on features that are computed once")
        arrays = self._features(train, "features")
        batch_size = train.batch_size
        examples = len(keras.tree.flatten(arrays[1])[0])
        if math.ceil(examples / batch_size) != run.num_batches:  # of several sizes
            batch_size = math.ceil(examples / run.num_batches)
        settings = dict(run.settings)
        if validation is not None:
            held_out = self._features(validation, "validation_features")
            epochs = Epochs(
                held_out, validation.batch_size, None, replicas=run.replicas
            )
            settings["validation_data"] = epochs.dataset
        seed = run.seed if train.shuffled else None
        self.head.fit(
            Epochs(arrays, batch_size, seed, run.clock, run.replicas),
            self.callbacks,
            initial_epoch=run.done,
            epochs=run.head_epochs,
            verbose=run.verbose,
            **settings,
        )
        return True

    def _features(self, data: Any, name: str) -> tuple:
        path = None
        if self.run.folder and data.same_order:
            path = self.run.folder.path / name
        return self.head.features(data.dataset, path, self.run.verbose)

    def _fit(self, done: int) -> None:
        run = self.run
        validation_data = run.validation_data
        if isinstance(validation_data, Epochs):
            validation_data = validation_data.in_order
        arguments = {"x": run.data}
        if isinstance(run.data, Epochs):
            arguments = {"x": run.data.dataset}
        if not isinstance(run.data, keras.utils.PyDataset):
            arguments["shuffle"] = False  # or Keras warns that it cannot
        run.model.fit(
            **arguments,
            validation_data=validation_data,
            callbacks=self.callbacks,
            initial_epoch=done,
            epochs=run.epochs,
            verbose=run.verbose,
            **run.settings,
        )


class CachedHead:
    """Fit a head alone, with the loss, metrics and optimizer of the whole model.

    The head holds the layers of the model and its optimizer is the model's own, so
    that the model has learned when the head has, and training goes on from there.

    Args:
        model: A built and compiled model.
        group: Its last layer group.
    """

    def __init__(self, model: keras.Model, group: LayerGroup) -> None:
        self.model = model
        self.group = group
        self.body = self.head = None
        self.seconds = 0.0  # of computing features, since the last epoch

    def cut(self) -> None:
        """Take the model apart into what computes the features, and the head.

        Raises:
            ValueError: If features cannot be cached below the head, with the reason.
        """
        model = self.model
        for name in STEPS:
            if getattr(model, name).__module__.partition(".")[0] != "keras":
                raise ValueError(f"{type(model).__name__} has a {name} of its own")
        if _keras.inner_optimizer(model.optimizer).use_ema:
            raise ValueError("the optimizer keeps averages of all weights")
        with _keras.scope(model):
            self.body, self.head = cut_at_head(model, self.group)
        self.head.stop_training = False  # as `fit` sets it

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
        self.head.fit(train.dataset, callbacks=callbacks, shuffle=False, **settings)
        self.head.reset_metrics()


class _AcrossFits(keras.callbacks.CallbackList):
    """Callbacks to which several fits are one training."""

    last = None

    def begin(self) -> None:
        super().on_train_begin()

    def end(self) -> None:
        super().on_train_end(self.last)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Do nothing: it has begun."""

    def on_train_end(self, logs: dict | None = None) -> None:
        """Keep the logs for the real end."""
        self.last = logs


class _Progress(keras.callbacks.ProgbarLogger):
    """The progress bar of Keras without what the table of phases has told."""

    async_safe = True  # as Keras takes its own to be

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """End the bar with the values of the epoch."""
        shown = {k: v for k, v in (logs or {}).items() if k not in TOLD}
        super().on_epoch_end(epoch, shown)


class _Cost(keras.callbacks.Callback):
    """Add the seconds of computing features to those of the epoch after it."""

    def __init__(self, cached: CachedHead) -> None:
        super().__init__()
        self.cached = cached

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs["seconds"] += self.cached.seconds
        self.cached.seconds = 0.0


class _Stop(keras.callbacks.Callback):
    """Stop the fit of the head where a callback stops that of the whole model."""

    async_safe = True  # the fit of the whole model is dispatched as without it

    def __init__(self, cached: CachedHead) -> None:
        super().__init__()
        self.cached = cached

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._stop()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.cached.head is not None:
            self.cached.head.stop_training |= self.model.stop_training
