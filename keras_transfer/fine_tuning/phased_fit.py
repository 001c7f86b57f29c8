"""One training in two fits: the head on cached features, then the whole model."""

from __future__ import annotations

import functools
import math
from typing import Any

import keras

from keras_transfer import _keras
from keras_transfer.backbones.training_flags import train_only
from keras_transfer.data.epochs import Epochs
from keras_transfer.data.epochs import repeated
from keras_transfer.data.short_texts import short_texts
from keras_transfer.fine_tuning.cached_head import CachedHead
from keras_transfer.fine_tuning.net_below import NetBelow
from keras_transfer.fine_tuning.run import Run
from keras_transfer.fine_tuning.stays_finite import StaysFinite
from keras_transfer.fine_tuning.unchanged import ModelState

# Logs of GradualUnfreezing, which the progress bar would show as 0.0000e+00.
TOLD = ("phase", "seconds", "trainable_parameters")


class PhasedFit:
    """Fit the model of a run in phases, which callbacks get as a single training.

    The `model` of the callbacks is the whole model in both fits. The constructor sets
    it.

    Args:
        run: The run. Its model has the optimizer for this training.
        start: The state of the model before the run.
    """

    def __init__(self, run: Run, start: ModelState) -> None:
        self.run = run
        self.net = None
        if run.strategy.converges and run.head_epochs < run.epochs:
            self.net = NetBelow(run, start)
        self.converges = run.strategy.converges and run.done == 0
        self.head = None
        if self.converges or run.done < run.head_epochs:
            self.head = run.cached
        callbacks = [*run.callbacks, run.clock, run.history]
        if run.folder:
            callbacks.append(run.folder.callback)
        if run.verbose != 0:
            callbacks.append(_Progress())
        if not any(isinstance(x, keras.callbacks.TerminateOnNaN) for x in callbacks):
            callbacks.insert(0, StaysFinite())
        if self.head:
            # _Cost changes the seconds that GradualUnfreezing logs. _Stop must be last,
            # because any callback may stop the training.
            callbacks = [_Cost(self.head), *callbacks, _Stop(self.head)]
        self.callbacks = _AcrossFits(
            [run.unfreezing, *callbacks],
            model=run.model,
            verbose=run.verbose,
            epochs=run.epochs,
            steps=run.num_batches,
        )

    def train(self) -> None:
        """Train all epochs that are not done, and call the callbacks."""
        run = self.run
        run.model.stop_training = False
        self.callbacks.begin()
        done = run.done
        try:
            if self.head:
                self._train_head()
                done = max(done, run.head_epochs)
            elif done < run.head_epochs and run.verbose:
                print(f"phase 0 runs the whole model in each epoch: {run.uncached}")
            if done < run.epochs and not run.model.stop_training:
                self._fit(done)
        except KeyboardInterrupt:
            run.unfreezing.on_train_end()  # removes the rate of the phase
            raise
        self.callbacks.end()
        hurt = self.net and self.net.check()
        if not hurt:
            return
        run.history.hurt = hurt
        if run.folder:
            run.folder.save_end(run.model)
        if run.verbose:
            print(f"fine_tune: {hurt}")

    def _train_head(self) -> None:
        """Train the head alone, to its end or for some epochs, on cached features."""
        run = self.run
        if run.verbose:
            print("the head trains alone on features that are computed once")
        train = repeated(run.data, "of training")
        arrays = self._features(train, "features")
        size, examples = train.batch_size, len(keras.tree.flatten(arrays[1])[0])
        if math.ceil(examples / size) != run.num_batches:  # batches of many sizes
            size = math.ceil(examples / run.num_batches)
        seed = run.seed if train.shuffled else None
        train = Epochs(arrays, size, seed, run.clock, run.replicas)
        if self.converges:
            self._converge(train)
        if run.done < run.head_epochs:
            self._fit_head(train)

    def _converge(self, train: Epochs) -> None:
        run, phases = self.run, self.run.unfreezing.phases
        first = phases[0]  # GradualUnfreezing sets the flags only when an epoch begins
        train_only(run.model, phases.variables(first), phases.layers(first))
        text = self.head.converge(
            train.arrays, run.settings["class_weight"], train.batch_size, run.seed
        )
        if run.verbose:
            print(f"the head starts where it has converged: {text}")
        if self.net:
            self.net.remember()

    def _fit_head(self, train: Epochs) -> None:
        run, settings = self.run, dict(self.run.settings)
        if run.validation_data is not None:
            validation = repeated(run.validation_data, "of validation")
            held_out = self._features(validation, "validation_features")
            epochs = Epochs(
                held_out, validation.batch_size, None, replicas=run.replicas
            )
            settings["validation_data"] = epochs.dataset
        self.head.fit(
            train,
            self.callbacks,
            initial_epoch=run.done,
            epochs=run.head_epochs,
            verbose=run.verbose,
            **settings,
        )

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
            arguments["shuffle"] = False  # otherwise Keras warns
        fit, short = run.model.fit, None
        if run.replicas == 1 and not run.made_labels:
            short = short_texts(run.model, run.data, run.validation_data)
        if short is not None:
            fit = functools.partial(short.fit, run.model)
            if run.verbose:
                print(
                    f"texts are padded to {short.length} tokens, not to "
                    f"{short.full_length}: no text is longer"
                )
        elif getattr(run.model, "preprocessor", None) is None:
            _keras.trace_once(run.model, arguments["x"])
        fit(
            **arguments,
            validation_data=validation_data,
            callbacks=self.callbacks,
            initial_epoch=done,
            epochs=run.epochs,
            verbose=run.verbose,
            **run.settings,
        )


class _AcrossFits(keras.callbacks.CallbackList):
    """A callback list that runs several fits as one training."""

    last = None

    def begin(self) -> None:
        super().on_train_begin()

    def end(self) -> None:
        super().on_train_end(self.last)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Do nothing, because the training has already begun."""

    def on_train_end(self, logs: dict | None = None) -> None:
        """Keep the logs for the end of the whole training."""
        self.last = logs


class _Progress(keras.callbacks.ProgbarLogger):
    """The progress bar of Keras, without the logs of GradualUnfreezing."""

    async_safe = True  # as Keras sets it for its own progress bar

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Finish the bar with the values of the epoch."""
        shown = {k: v for k, v in (logs or {}).items() if k not in TOLD}
        super().on_epoch_end(epoch, shown)


class _Cost(keras.callbacks.Callback):
    """Add the time for computing features to the `seconds` of the next epoch."""

    def __init__(self, cached: CachedHead) -> None:
        super().__init__()
        self.cached = cached

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs["seconds"] += self.cached.seconds
        self.cached.seconds = 0.0


class _Stop(keras.callbacks.Callback):
    """Stop the fit of the head when a callback stops the training of the model."""

    async_safe = True  # so Keras may still run the steps of the model asynchronously

    def __init__(self, cached: CachedHead) -> None:
        super().__init__()
        self.cached = cached

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._stop()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._stop()

    def _stop(self) -> None:
        # Not `self.model`: on JAX, reading it gives all variables their values, which
        # no callback may do while a step runs.
        cached = self.cached
        if cached.head is not None:
            cached.head.stop_training |= cached.model.stop_training
