"""Trials of candidates on one model, each from the same start."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import keras

from keras_transfer import _keras
from keras_transfer.adapters.lora import LoRA
from keras_transfer.adapters.merge import detach
from keras_transfer.adapters.switching import attached
from keras_transfer.backbones.feature_cache import cache_features
from keras_transfer.backbones.training_flags import train_only
from keras_transfer.data.epochs import Epochs
from keras_transfer.data.examples import BATCH_SIZE
from keras_transfer.fine_tuning.candidate import Candidate
from keras_transfer.fine_tuning.pilot.bench import Bench
from keras_transfer.fine_tuning.pilot.held_out import classes_of
from keras_transfer.fine_tuning.pilot.held_out import folds
from keras_transfer.fine_tuning.pilot.held_out import read_examples
from keras_transfer.fine_tuning.pilot.held_out import take
from keras_transfer.fine_tuning.pilot.scores import Score
from keras_transfer.fine_tuning.pilot.scores import score
from keras_transfer.fine_tuning.run import Run
from keras_transfer.fine_tuning.unchanged import ModelState


class Trials:
    """Short trainings of candidates, scored on held-out examples.

    All trials share the model, the cached features, and one trace of the training step
    for each set of trainable variables.

    Args:
        run: The run of fine_tune. Its model changes in each trial.
        start: The state of the model from which each trial starts, with all weights.
        frozen: As in `fine_tune`.
    """

    def __init__(self, run: Run, start: ModelState, frozen: Any) -> None:
        self.run = run
        self.start = start
        self.frozen = frozen
        self.examples = read_examples(run)
        count = len(keras.tree.flatten(self.examples)[0])
        self.classes = classes_of(run, self.examples[1])
        self.folds = folds(self.classes, count, run.seed)
        self.benches = {}
        self.solutions = {}
        self.features = None

    def trial(self, candidate: Candidate, steps: int, fold: int) -> Score:
        """Train for a number of steps, and return the score on held-out examples.

        Without steps, this is the score of the converged or already trained head.
        """
        train, held_out = (take(self.examples, x) for x in self.folds[fold])
        self._restart(candidate, fold)
        classes = self.classes
        if classes is not None:
            classes = classes[self.folds[fold].held_out]
        with self._bench(candidate) as bench:
            if steps:
                bench.train(candidate, train, steps)
            else:
                bench.prepare()
            weights = self.run.settings["class_weight"]
            return score(self.run.model, held_out, weights, classes)

    def _restart(self, candidate: Candidate, fold: int) -> None:
        """Restore the start, with a converged head if the candidate has one."""
        self.start.restore_weights()
        if not self.run.strategy.converges or candidate.strategy == "full":
            return
        head = self.run.cached.group.variables
        if fold not in self.solutions:
            self._solve(fold)
            self.solutions[fold] = _keras.snapshot(head)
            self.start.restore_weights()
        _keras.restore(head, self.solutions[fold])

    @contextlib.contextmanager
    def _bench(self, candidate: Candidate) -> Iterator[Bench]:
        model, policy = self.run.model, candidate.batch_norm
        adds = candidate.strategy == "lora" and not attached(model)
        if adds or policy not in self.benches:
            self.start.optimizer.restore()
        if adds:
            random.seed(self.run.seed)  # so a pilot that continues has the same LoRA
            with _keras.scope(model):
                LoRA().attach(model, verbose=0)
            try:
                yield Bench(self.run, policy, self.frozen)
            finally:
                detach(model)
            return
        if policy not in self.benches:
            self.benches[policy] = Bench(self.run, policy, self.frozen)
        yield self.benches[policy]

    def _solve(self, fold: int) -> None:
        """Train the head to its end on the cached features of a fold."""
        run = self.run
        self.start.optimizer.restore()  # some heads train at its learning rate
        if self.features is None:
            dataset = Epochs(self.examples, BATCH_SIZE, None).in_order
            rows = cache_features(run.cached.body, dataset, None, verbose=0)
            self.features = next(rows.batch(len(rows)).as_numpy_iterator())
            self.features = self.features[: len(self.examples)]
        phases = run.unfreezing.phases
        train_only(run.model, phases.variables(phases[0]), phases.layers(phases[0]))
        rows = self.folds[fold].train
        arrays = take(self.features, rows)
        weights = run.settings["class_weight"]
        run.cached.converge(arrays, weights, run.batch_size, run.seed)
