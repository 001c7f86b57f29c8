"""One set of trainable variables and one optimizer for several trials of a model."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.backbones.groups import UNUSED
from keras_transfer.backbones.training_flags import train_only
from keras_transfer.callbacks.phases import able_groups
from keras_transfer.callbacks.phases import first_epochs
from keras_transfer.callbacks.phases import Phase
from keras_transfer.callbacks.phases import Phases
from keras_transfer.data.epochs import Epochs
from keras_transfer.fine_tuning.candidate import Candidate
from keras_transfer.fine_tuning.kept_frozen import kept_frozen
from keras_transfer.fine_tuning.rates import update_schedule
from keras_transfer.fine_tuning.run import Run
from keras_transfer.fine_tuning.strategies import choose_strategy
from keras_transfer.optimizers.discriminative import Discriminative
from keras_transfer.optimizers.discriminative import discriminative
from keras_transfer.optimizers.discriminative import with_rate_table

# The rate factor of a group that a phase does not train. All groups are trainable in
# each trial, so that trials share a trace.
STILL = 1e-30


class Bench:
    """The model, prepared for trials with the same trainable variables.

    Rates, schedules and phases are values of variables, so all trials share one trace
    of the training step. A phase that does not train a group sets its rate to nearly 0.

    Args:
        run: The run of fine_tune.
        batch_norm: "frozen" or "train".
        frozen: As in `fine_tune`.
    """

    def __init__(self, run: Run, batch_norm: str, frozen: Any) -> None:
        self.run = run
        model = run.model
        groups = layer_groups(model)
        kept = kept_frozen(groups, frozen)
        self.names = able_groups(groups, batch_norm, kept.ids)
        phases = Phases(groups, [Phase(tuple(self.names))], batch_norm, kept.ids)
        self.variables = phases.variables(phases[0])
        self.layers = phases.layers(phases[0])
        self.slots = [name for name in groups.names if name != UNUSED]
        old = _keras.inner_optimizer(model.optimizer)
        self.own_rates = isinstance(old, Discriminative)
        with _keras.scope(model):
            if self.own_rates:
                table = old.rate_table.excluding(old)
                optimizer = with_rate_table(old, table)
            else:
                rates = dict.fromkeys(self.slots, 1.0)
                optimizer = discriminative(old, groups, rates=rates)
            optimizer.build(self.variables)
            _keras.replace_optimizer(model, optimizer)
            model.optimizer.build(self.variables)
        rate = _keras.settings(optimizer)["learning_rate"]
        self.rate = rate if isinstance(rate, float) else None
        self.optimizer = model.optimizer
        self.start = _keras.snapshot(self.optimizer.variables)
        train_only(model, self.variables, self.layers)
        _keras.remake_functions(model, "train", "test")
        self.functions = model.train_function, model.test_function

    def train(self, candidate: Candidate, arrays: tuple, steps: int) -> None:
        """Train the model for a number of steps, as a candidate would."""
        run, model = self.run, self.run.model
        self.prepare()
        data = _Steps(arrays, run.batch_size, run.seed, steps)
        _keras.trace_once(model, data.dataset)
        # The fit of a keras-hub Task would preprocess once more.
        keras.Model.fit(
            model,
            data.dataset,
            shuffle=False,
            verbose=0,
            class_weight=run.settings["class_weight"],
            callbacks=[_Rates(self, candidate, steps)],
        )

    def prepare(self) -> None:
        """Give the model the flags, the functions and the optimizer of this bench."""
        model = self.run.model
        train_only(model, self.variables, self.layers)
        model.optimizer = self.optimizer
        _keras.restore(self.optimizer.variables, self.start)
        model.train_function, model.test_function = self.functions

    def phases(self, candidate: Candidate, steps: int) -> tuple[dict, list[int]]:
        """Return the factors by slot for the first step of each phase, and the thaws.

        The phases of a run are scaled to the steps of the trial.
        """
        run = self.run
        strategy = choose_strategy(
            candidate.strategy,
            self.names,
            run.epochs,
            run.num_batches,
            head=run.head,
            converges=run.cached is not None,
        )
        shares = dict.fromkeys(self.slots, candidate.share or 1.0)
        if strategy.new_head:
            shares[self.slots[-1]] = 1.0
        found, phases = {}, strategy.phases
        for start, phase in zip(first_epochs(phases), phases, strict=True):
            found[round(steps * start / run.epochs)] = {
                name: shares[name] * phase.rate if name in phase.groups else STILL
                for name in self.slots
            }
        thaws = [round(steps * epoch / run.epochs) for epoch in strategy.thaws]
        return found, thaws


class _Steps(Epochs):
    """Full batches for a number of steps, over several epochs without a seam."""

    def __init__(self, arrays: tuple, batch_size: int, seed: int, steps: int) -> None:
        super().__init__(arrays, batch_size, seed)
        self.sizes = [min(batch_size, self.examples)] * steps

    @property
    def batches(self) -> int:
        """The number of steps."""
        return len(self.sizes)

    def _order(self) -> np.ndarray:
        epochs = math.ceil(sum(self.sizes) / self.examples)
        orders = [
            np.random.default_rng((self.seed, epoch)).permutation(self.examples)
            for epoch in range(epochs)
        ]
        return np.concatenate(orders)


class _Rates(keras.callbacks.Callback):
    """Set the learning rate of each step, and the factors of each phase."""

    def __init__(self, bench: Bench, candidate: Candidate, steps: int) -> None:
        super().__init__()
        self.bench = bench
        self.phases, thaws = bench.phases(candidate, steps)
        self.schedule = None
        if bench.rate is not None:
            self.schedule = update_schedule(bench.rate, steps, thaws)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        optimizer = _keras.inner_optimizer(self.bench.optimizer)
        _keras.sync(self.bench.run.model)
        if batch in self.phases and not self.bench.own_rates:
            optimizer.set_rates(self.phases[batch])
        if self.schedule is not None:
            optimizer.learning_rate = float(self.schedule(batch))
