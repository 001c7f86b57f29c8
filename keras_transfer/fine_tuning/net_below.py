"""The net below a run: the probe comes back if fine-tuning ends below it."""

from __future__ import annotations

import functools
import io
import math
import pathlib

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._whole_file import replace_file
from keras_transfer.data.epochs import Epochs
from keras_transfer.data.short_texts import ShortTexts
from keras_transfer.fine_tuning.run import Run
from keras_transfer.fine_tuning.run_folder import PROBE
from keras_transfer.fine_tuning.unchanged import ModelState

COMPARED = 512  # training examples on which the loss is compared
WORSE = 0.05  # share of the probe's loss by which a loss counts as higher


class NetBelow:
    """Restore the start with the converged head if the training loss ends above it.

    The training loss of a model that was fine-tuned is far below the loss of the
    converged head. If it is higher, the training has damaged the model.

    Args:
        run: A run whose head converges before its first epoch.
        start: The state of the model before the run.
        short: The short texts of the run, or None.
    """

    def __init__(self, run: Run, start: ModelState, short: ShortTexts | None) -> None:
        self.run = run
        self.start = start
        self.short = short
        self.head = self.loss = None

    @property
    def _path(self) -> pathlib.Path | None:
        return self.run.folder and self.run.folder.path / PROBE

    def remember(self) -> None:
        """Store the converged head and its training loss."""
        variables = self.run.groups[-1].variables
        self.head = [_keras.value(each) for each in variables]
        self.loss = self._training_loss()
        if self._path:
            file = io.BytesIO()
            np.savez(file, np.float64(self.loss), *self.head)
            replace_file(self._path, file.getvalue())

    def check(self) -> str | None:
        """Restore the probe if the loss is higher than its loss, and return why."""
        if self.loss is None and self._path and self._path.is_file():
            with np.load(self._path, allow_pickle=False) as file:
                loss, *self.head = file.values()
                self.loss = float(loss)
        if self.loss is None:
            return None
        loss = self._training_loss()
        if loss <= self.loss + WORSE * abs(self.loss):
            return None
        _keras.restore(self.start.variables, self.start.values)
        for variable, value in zip(
            self.run.groups[-1].variables, self.head, strict=True
        ):
            variable.assign(value)
        return (
            f"Fine-tuning hurt here: the loss on training examples is {loss:.4g}, and "
            f"was {self.loss:.4g} when only the head had trained. The model has the "
            "weights of that time again. Use a smaller learning rate."
        )

    def _training_loss(self) -> float:
        run, data = self.run, self.run.data
        if isinstance(data, Epochs):  # which may be sorted by class
            order = np.random.default_rng(run.seed).permutation(data.examples)
            rows = np.sort(order[:COMPARED])
            arrays = keras.tree.map_structure(lambda x: x[rows], data.arrays)
            data = Epochs(arrays, run.batch_size, None, replicas=run.replicas).in_order
        batches = data.take(math.ceil(COMPARED / run.batch_size))
        evaluate, short = run.model.evaluate, self.short
        if short is not None:
            batches = short.batches(batches)
            evaluate = functools.partial(keras.Model.evaluate, run.model)
        return float(evaluate(batches, return_dict=True, verbose=0)["loss"])
