"""One training in two fits: of the head on cached features, then of the whole."""

from __future__ import annotations

import math
import os
import pathlib
from typing import Any
from typing import NamedTuple

import keras

from keras_transfer.callbacks.phases import Phases
from keras_transfer.data.epochs import Epochs
from keras_transfer.data.repeats import same_order
from keras_transfer.fine_tuning.cached_head import CachedHead

# Logs of GradualUnfreezing, which the bar would write as 0.0000e+00.
TOLD = ("phase", "seconds", "trainable_parameters")


class PhasedFit:
    """Fit a model in phases, with callbacks that see a single training.

    Args:
        model: The compiled model.
        callbacks: List of callbacks, GradualUnfreezing first; their `model` is the
            whole model in both fits.
        epochs: Epochs of all phases together.
        steps: Batches an epoch.
        seed: Seed of the order of cached features.
        settings: Other arguments of `fit`.
    """

    def __init__(
        self,
        model: keras.Model,
        callbacks: list[keras.callbacks.Callback],
        epochs: int,
        steps: int,
        seed: int,
        settings: dict,
    ) -> None:
        self.model = model
        self.epochs = epochs
        self.steps = steps
        self.done = 0
        self.seed = seed
        self.settings = dict(settings)
        self.verbose = self.settings.pop("verbose")
        self.callbacks = _AcrossFits(
            callbacks if self.verbose == 0 else [*callbacks, _Progress()],
            model=model,
            verbose=self.verbose,
            epochs=epochs,
            steps=steps,
        )

    def run(
        self,
        phases: Phases,
        data: Any,
        validation_data: Any,
        directory: str | os.PathLike | None,
    ) -> None:
        """Train all epochs that are not done, and tell the callbacks."""
        self.model.stop_training = False
        self.callbacks.begin()
        alone = [*phases.starts()[1:], self.epochs][0]
        head = (phases.groups.names[-1],)
        if phases[0].groups == head and self.done < alone:
            self._fit_head(phases, data, validation_data, directory, alone)
        if self.done < self.epochs and not self.model.stop_training:
            self._fit(data, validation_data)
        self.callbacks.end()

    def _fit_head(
        self, phases: Phases, data: Any, validation_data: Any, directory: Any, end: int
    ) -> None:
        try:
            head = CachedHead(self.model, phases.groups[-1])
            train, validation = _source(data), None
            if validation_data is not None:
                validation = _source(validation_data, "of validation")
        except ValueError as reason:
            if self.verbose:
                print(f"phase 0 runs the whole model in each epoch: {reason}")
            return
        if self.verbose:
            print("phase 0 runs on features that are computed once")
        arrays = []
        for name, source in (("features", train), ("validation_features", validation)):
            path = None
            if directory is not None and source is not None and source.repeats:
                path = pathlib.Path(directory) / name
            if source is not None:
                arrays.append(head.features(source.dataset, path, self.verbose))
        batch_size = train.batch_size
        examples = len(keras.tree.flatten(arrays[0][1])[0])
        if math.ceil(examples / batch_size) != self.steps:  # batches of several sizes
            batch_size = math.ceil(examples / self.steps)
        settings = dict(self.settings)
        if validation is not None:
            epochs = Epochs(arrays[1], validation.batch_size, None)
            settings["validation_data"] = epochs.dataset
        head.fit(
            Epochs(arrays[0], batch_size, self.seed if train.shuffles else None),
            self.callbacks,
            initial_epoch=self.done,
            epochs=end,
            verbose=self.verbose,
            **settings,
        )
        self.done = end

    def _fit(self, data: Any, validation_data: Any) -> None:
        if isinstance(validation_data, Epochs):
            validation_data = validation_data.in_order
        arguments = {"x": data}
        if isinstance(data, Epochs):
            arguments = {"x": data.dataset}
        if not isinstance(data, keras.utils.PyDataset):
            arguments["shuffle"] = False  # or Keras warns that it cannot
        self.model.fit(
            **arguments,
            validation_data=validation_data,
            callbacks=self.callbacks,
            initial_epoch=self.done,
            epochs=self.epochs,
            verbose=self.verbose,
            **self.settings,
        )


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


class _Source(NamedTuple):
    """Data whose features can be cached.

    `repeats` tells whether each pass has the same order, so that a cache on disk can
    be used again; `shuffles` whether each epoch of training has an order of its own.
    """

    dataset: Any
    batch_size: int
    repeats: bool
    shuffles: bool


def _source(data: Any, role: str = "of training") -> _Source:
    """Return data to cache.

    Raises:
        ValueError: If their features cannot be cached, with the reason.
    """
    if isinstance(data, Epochs):
        return _Source(data.in_order, data.batch_size, repeats=True, shuffles=True)
    if isinstance(data, keras.utils.PyDataset):
        raise ValueError(f"a PyDataset, as that {role}, may differ in each pass")
    try:
        repeats = same_order(data)
    except ValueError as reason:
        raise ValueError(f"{reason} (that {role})") from reason
    first = next(data.take(1).as_numpy_iterator())
    size = len(keras.tree.flatten(first)[-1])
    return _Source(data, size, repeats=repeats, shuffles=not repeats)
