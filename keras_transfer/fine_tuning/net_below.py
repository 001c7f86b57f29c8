"""The net below a run: the probe comes back if fine-tuning ends below it."""

from __future__ import annotations

import io
import pathlib

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._whole_file import replace_file
from keras_transfer.data.epochs import Epochs
from keras_transfer.fine_tuning.pilot.held_out import read_examples
from keras_transfer.fine_tuning.pilot.held_out import take
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
    """

    def __init__(self, run: Run, start: ModelState) -> None:
        self.run = run
        self.start = start
        self.examples = None
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
        run = self.run
        if self.examples is None:
            self.examples = read_examples(run, COMPARED)
        size, examples = run.batch_size, self.examples
        if run.replicas > 1:  # Keras needs equal shares of each batch
            size = max(1, size // run.replicas) * run.replicas
            count = len(keras.tree.flatten(examples)[0])
            examples = take(examples, np.arange(count // size * size or count))
        batches = Epochs(examples, size, None).in_order
        # The method of a keras-hub Task would preprocess once more.
        logs = keras.Model.evaluate(run.model, batches, return_dict=True, verbose=0)
        return float(logs["loss"])
