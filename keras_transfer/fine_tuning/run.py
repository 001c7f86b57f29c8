"""A run of fine_tune as one value: what it was given, checked, and what follows."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._arguments import whole_number
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.callbacks.gradual_unfreezing import GradualUnfreezing
from keras_transfer.callbacks.phases import Phase
from keras_transfer.callbacks.phases import Phases
from keras_transfer.callbacks.phases import to_config
from keras_transfer.data.epochs import Clock
from keras_transfer.data.epochs import Epochs
from keras_transfer.data.epochs import num_batches
from keras_transfer.data.epochs import with_length
from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import BATCH_SIZE
from keras_transfer.data.examples import DATASET
from keras_transfer.data.examples import fit_arguments
from keras_transfer.data.examples import kind_of
from keras_transfer.data.labels import read_labels
from keras_transfer.distribute.check import check as check_replicas
from keras_transfer.fine_tuning.check_labels import check_labels
from keras_transfer.fine_tuning.run_folder import identity
from keras_transfer.fine_tuning.run_folder import RunFolder
from keras_transfer.fine_tuning.strategies import choose_strategy
from keras_transfer.fine_tuning.strategies import Strategy

SETTINGS = (
    "batch_size",
    "callbacks",
    "class_weight",
    "validation_freq",
    "verbose",
)
REFUSED = (keras.callbacks.BackupAndRestore, GradualUnfreezing)
RATE_CALLBACKS = (
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One call of `fine_tune`, known in full before anything is changed.

    Args:
        model: The compiled model.
        groups: Its layer groups.
        strategy: The strategy that was chosen.
        unfreezing: The callback that follows the phases of the strategy.
        data: Training data: `Epochs` of arrays, a dataset, or a PyDataset.
        validation_data: The same, or None.
        epochs: Epochs of all phases together.
        num_batches: Batches of an epoch.
        seed: Seed of the order of arrays, the one of the folder if that has one.
        clock: The callback that knows the epoch, for all data of the run.
        callbacks: Those of the user.
        history: The History that the training fills.
        folder: Where the run is saved and goes on, or None.
        done: Epochs that were done before this call.
        finished: Whether the run ended before this call.
        verbose: As of `fit`.
        settings: Other arguments of `fit`.
    """

    model: keras.Model
    groups: LayerGroups
    strategy: Strategy
    unfreezing: GradualUnfreezing
    data: Any
    validation_data: Any
    epochs: int
    num_batches: int
    seed: int
    clock: Clock
    callbacks: tuple[keras.callbacks.Callback, ...]
    history: keras.callbacks.History
    folder: RunFolder | None
    done: int
    finished: bool
    verbose: int
    settings: dict

    @classmethod
    def of(
        cls,
        model: keras.Model,
        data: Any,
        validation_data: Any,
        epochs: int,
        strategy: str,
        directory: str | os.PathLike | None,
        settings: dict,
    ) -> Run:
        """Return the run of what `fine_tune` was given; nothing is changed yet.

        Raises:
            TypeError: If `model` or data are of an unknown kind.
            ValueError: If they, or a setting, cannot be used; see `fine_tune`.
        """
        check_model(model)
        check_replicas(model)
        epochs = whole_number("epochs", epochs)
        data, validation_data = without_none(data), without_none(validation_data)
        settings = check_settings(settings, data)
        batch_size, callbacks, verbose = map(
            settings.pop, ("batch_size", "callbacks", "verbose")
        )
        labels, held_out = checked_labels(model, data, validation_data, batch_size)
        settings["class_weight"] = all_classes(settings.get("class_weight"), labels)
        groups, count = layer_groups(model), _num_examples(labels)
        names, frozen = _learnable(groups), _is_frozen(model)
        chosen = choose_strategy(strategy, names, epochs, count, frozen=frozen)
        unfreezing = GradualUnfreezing(groups, chosen.phases)
        history, folder = keras.callbacks.History(), None
        if directory is not None:
            plan = {"strategy": chosen.name, "phases": to_config(chosen.phases)}
            plan |= {"epochs": epochs, "batch_size": batch_size}
            plan |= identity(model, data, labels)
            folder = RunFolder(directory, plan, history)
        seed = int(np.random.randint(2**31))
        if folder and folder.state:
            seed = folder.seed
        clock = Clock()
        data = _in_epochs(data, batch_size, seed, clock, labels)
        validation_data = _in_epochs(validation_data, batch_size, 0, clock, held_out)
        return cls(
            model=model,
            groups=groups,
            strategy=chosen,
            unfreezing=unfreezing,
            data=data,
            validation_data=validation_data,
            epochs=epochs,
            num_batches=num_batches(data),
            seed=seed,
            clock=clock,
            callbacks=tuple(callbacks),
            history=history,
            folder=folder,
            done=folder.epoch if folder else 0,
            finished=bool(folder) and folder.finished,
            verbose=verbose,
            settings=settings,
        )

    @property
    def head_epochs(self) -> int:
        """The number of epochs, the first ones, in which the head learns alone."""
        phases = self.unfreezing.phases
        if phases[0].groups != (self.groups.names[-1],):
            return 0
        return [*phases.starts()[1:], self.epochs][0]

    @property
    def scheduled_batches(self) -> int | None:
        """The batches of the rate's schedule; None where a callback sets the rate."""
        if any(isinstance(callback, RATE_CALLBACKS) for callback in self.callbacks):
            return None
        return self.epochs * self.num_batches


def check_model(model: keras.Model) -> None:
    """Check that a model is built, compiled, and was not trained.

    Raises:
        TypeError: If it is not a model.
        ValueError: If it is not ready.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"model={model!r} is not a Keras model.")
    if not model.compiled or model.optimizer is None:
        raise ValueError(
            f"The model {model.name!r} is not compiled. Call model.compile(optimizer, "
            "loss) first; the loss tells the task."
        )
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so it has no weights yet. Call it "
            "on one batch first, or give it an Input."
        )
    optimizer = _keras.inner_optimizer(model.optimizer)
    if _keras.value(optimizer.iterations) > 0:
        raise ValueError(
            f"The {type(optimizer).__name__} of the model has made updates already, "
            "so its moments and its schedule are those of an earlier training. Call "
            "model.compile() with a new one."
        )


def check_settings(settings: dict, data: Any) -> dict:
    """Return all that is passed on to `fit`, checked.

    Raises:
        ValueError: If a setting is unknown or does not go with the others.
    """
    unknown = sorted(set(settings) - set(SETTINGS))
    if unknown:
        raise ValueError(
            f"fine_tune passes {SETTINGS} on to fit, and not {unknown}: it decides on "
            "epochs, order and steps itself. Sample weights go into `data`."
        )
    callbacks = keras.tree.flatten(settings.get("callbacks") or [])
    for callback in callbacks:
        if isinstance(callback, REFUSED):
            raise ValueError(
                f"fine_tune has its own way of what {type(callback).__name__} does: "
                "give `directory=` to go on after a kill, and `strategy=` for the "
                "phases."
            )
    spec = getattr(data, "element_spec", data)
    weighted = isinstance(spec, tuple) and len(spec) == 3
    if weighted and settings.get("class_weight"):
        raise ValueError(
            "There are a class_weight and sample weights in `data`, and Keras takes "
            "one of them. Multiply the sample weights by those of the classes."
        )
    settings = {"batch_size": None, "verbose": 1} | settings | {"callbacks": callbacks}
    if settings["verbose"] == "auto":  # what Keras makes of it in a terminal
        settings["verbose"] = 1
    return settings


def without_none(data: Any) -> Any:
    """Return data without the None that stands for no sample weights."""
    if isinstance(data, tuple) and len(data) == 3 and data[2] is None:
        return data[:2]
    return data


def checked_labels(
    model: keras.Model, data: Any, validation_data: Any, batch_size: int | None
) -> tuple[Any, Any]:
    """Return all labels of both data, checked against the loss; None where no data.

    Raises:
        TypeError: If data are of an unknown kind.
        ValueError: If data are empty or endless, or their labels cannot be learned.
    """
    fit_arguments(model, data, 1, batch_size)
    labels = read_labels(data)
    loss = _keras.compile_arguments(model)["loss"]
    output = getattr(model, "output_shape", None)  # of a subclassed model unknown
    if not isinstance(output, tuple) or any(isinstance(x, tuple) for x in output):
        output = None
    check_labels(loss, output, labels)
    if validation_data is None:
        return labels, None
    try:
        fit_arguments(model, validation_data, 1, None)
        held_out = read_labels(validation_data)
        check_labels(loss, output, held_out, learnt=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"In validation_data: {error}") from error
    return labels, held_out


def all_classes(weights: dict | None, labels: Any) -> dict | None:
    """Return a `class_weight` with 1 for each class that it does not name.

    Keras adds these for arrays, but not for a tf.data.Dataset.
    """
    if not weights or keras.tree.is_nested(labels):
        return weights
    one_hot = labels.ndim > 1 and labels.shape[-1] > 1
    highest = labels.shape[-1] - 1 if one_hot else int(np.round(labels.max()))
    return dict.fromkeys(range(highest + 1), 1.0) | weights


def _learnable(groups: LayerGroups) -> list[str]:
    """Return the names of groups that are not of frozen BatchNorm alone, or pinned."""
    phases = Phases(groups, [Phase(tuple(groups.names))], "frozen")
    return [name for name in groups.names if phases.variables(Phase(name))]


def _is_frozen(model: keras.Model) -> bool:
    return any(isinstance(x, FrozenBackbone) for x in _keras.flat_layers(model))


def _num_examples(labels: Any) -> int:
    return len(keras.tree.flatten(labels)[0])


def _in_epochs(
    data: Any, batch_size: int | None, seed: int, clock: Clock, labels: Any
) -> Any:
    """Return arrays as `Epochs`, and a dataset with its length."""
    if data is None:
        return None
    kind = kind_of(data)
    if kind == ARRAYS:
        return Epochs(data, batch_size or BATCH_SIZE, seed, clock)
    if kind == DATASET:
        return with_length(data, _num_examples(labels))
    return data
