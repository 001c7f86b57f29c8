"""One run of a comparison: a new model, its training, and its score."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Sequence
from typing import Any

import keras

from keras_transfer import _keras
from keras_transfer.analysis.energy.meter import EnergyMeter
from keras_transfer.analysis.transferability.builders import Builder
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.fine_tuning.comparison.batches import Batches
from keras_transfer.fine_tuning.comparison.negative_transfer import SCRATCH
from keras_transfer.fine_tuning.comparison.results import Result
from keras_transfer.fine_tuning.comparison.results import Results
from keras_transfer.fine_tuning.fine_tune import fine_tune
from keras_transfer.fine_tuning.pilot.scores import score_batches
from keras_transfer.fine_tuning.planned_run import BUDGET
from keras_transfer.fine_tuning.planned_run import planned_run
from keras_transfer.fine_tuning.run import Call
from keras_transfer.optimizers.discriminative import Discriminative
from keras_transfer.optimizers.discriminative import discriminative

# Weights of a model that is freed at once. Python frees a smaller one in time, and a
# search for it through all objects takes longer than some runs.
LARGE = 10_000_000

SETTINGS = {"batch_size": None, "callbacks": None, "class_weight": None}
SETTINGS |= {"validation_freq": 1, "verbose": 0}


def check_fits(
    model: keras.Model, names: Sequence[str], data: Any, epochs: int
) -> None:
    """Raise the error of a strategy that does not fit the model, without training.

    The model has LoRA afterward if this is one of the `names`.
    """
    call = Call(model, data, None, epochs, None, (), SETTINGS)
    for name in sorted(names, key=lambda name: name == "lora"):
        strategy = "full" if name == SCRATCH else name
        budget = 0.0 if name == "auto" else BUDGET
        try:
            with planned_run(call, strategy, "auto", budget):
                pass
        except ValueError as error:
            raise ValueError(
                f"The row {name!r} is not possible: {error} Or leave {name!r} out of "
                "`strategies`."
            ) from error


@dataclasses.dataclass(frozen=True)
class Runs:
    """The runs of a comparison. Each is trained once, or read from the folder.

    Args:
        title: What the printed lines begin with.
        builder: Builds the models.
        batches: The test part.
        results: The finished runs.
        epochs: Epochs of each run.
        verbose: As in `kt.compare`.
    """

    title: str
    builder: Builder
    batches: Batches
    results: Results
    epochs: int
    verbose: int | str

    def run(self, key: str, strategy: str, seed: int, data: Any) -> Result:
        """Return the result of a run.

        Args:
            key: What identifies the run among those of the same seed.
            strategy: "scratch", or a strategy of `fine_tune`.
            seed: The seed.
            data: The training data.
        """
        result = self.results.get(key, seed)
        if result is None:
            settings = {
                "epochs": self.epochs,
                "directory": self.results.folder_of(key, seed),
                "verbose": 0 if self.verbose in (0, 1, "auto") else 1,
            }
            result = train_and_score(
                self.builder, strategy, seed, data, self.batches, settings
            )
            self.results.add(key, seed, result)
        if self.verbose:
            print(f"{self.title}: {key}, seed {seed}: {result}")
        return result


def train_and_score(
    builder: Builder,
    name: str,
    seed: int,
    data: Any,
    batches: Batches,
    settings: dict,
) -> Result:
    """Train a new model, and return its result.

    Args:
        builder: Builds the model.
        name: "scratch", or a strategy of `fine_tune`.
        seed: The seed of the model and of the training.
        data: Training data.
        batches: The test part.
        settings: Further arguments of `fine_tune`.
    """
    model = builder(name != SCRATCH, seed)
    if name == SCRATCH:
        _set_equal_rates(model)
        settings = settings | {"strategy": "full", "batch_norm": "train"}
    else:
        settings = settings | {"strategy": name}
    # A run that diverges ends with a score that is not finite, and not with an error.
    stop = keras.callbacks.TerminateOnNaN()
    meter = EnergyMeter()
    try:
        history = fine_tune(model, data, callbacks=stop, **settings)
    finally:
        used = meter.stop()
    chosen = SCRATCH if name == SCRATCH else history.strategy
    parameters = history.history["trainable_parameters"][-1]
    result = Result(
        score_batches(model, batches),
        used.seconds,
        int(parameters),
        chosen,
        used.cpu_seconds,
        used.total,
    )
    large = model.count_params() > LARGE
    del model, history
    if large:
        gc.collect()
    return result


def _set_equal_rates(model: keras.Model) -> None:
    """Train all groups at the learning rate itself, because all are new."""
    optimizer = _keras.inner_optimizer(model.optimizer)
    if not isinstance(optimizer, Discriminative):
        with _keras.scope(model):
            groups = layer_groups(model)
            optimizer = discriminative(optimizer, groups, layer_decay=1.0)
        _keras.replace_optimizer(model, optimizer)
