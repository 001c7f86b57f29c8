"""A run of fine_tune as one value: its checked arguments and the plan."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._arguments import whole_number
from keras_transfer.backbones.compiled_model import check_compiled
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.callbacks.gradual_unfreezing import GradualUnfreezing
from keras_transfer.callbacks.phases import able_groups
from keras_transfer.callbacks.phases import Phases
from keras_transfer.callbacks.phases import to_config
from keras_transfer.data.epochs import Clock
from keras_transfer.data.epochs import Epochs
from keras_transfer.data.epochs import num_batches
from keras_transfer.data.epochs import with_length
from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import BATCH_SIZE
from keras_transfer.data.examples import DATASET
from keras_transfer.data.examples import kind_of
from keras_transfer.data.named_labels import without_booleans
from keras_transfer.distribute.check import check as check_replicas
from keras_transfer.fine_tuning.batch_shares import check_shares
from keras_transfer.fine_tuning.batch_shares import replicas_of
from keras_transfer.fine_tuning.cached_head import cached_head
from keras_transfer.fine_tuning.cached_head import CachedHead
from keras_transfer.fine_tuning.candidate import Candidate
from keras_transfer.fine_tuning.class_weights import class_weights
from keras_transfer.fine_tuning.inputs import check_settings
from keras_transfer.fine_tuning.inputs import checked_inputs
from keras_transfer.fine_tuning.inputs import Inputs
from keras_transfer.fine_tuning.inputs import output_of
from keras_transfer.fine_tuning.inputs import without_none
from keras_transfer.fine_tuning.kept_frozen import kept_frozen
from keras_transfer.fine_tuning.kept_frozen import KeptFrozen
from keras_transfer.fine_tuning.model_strategy import model_head
from keras_transfer.fine_tuning.model_strategy import model_strategy
from keras_transfer.fine_tuning.rates import default_share
from keras_transfer.fine_tuning.run_folder import begun_settings
from keras_transfer.fine_tuning.run_folder import identity
from keras_transfer.fine_tuning.run_folder import RunFolder
from keras_transfer.fine_tuning.strategies import RECIPE
from keras_transfer.fine_tuning.strategies import Strategy

RATE_CALLBACKS = (
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
)


class Call(NamedTuple):
    """The arguments of one call of `fine_tune` that no pilot chooses."""

    model: keras.Model
    data: Any
    validation_data: Any
    epochs: int
    directory: str | os.PathLike | None
    frozen: Any
    settings: dict


@dataclasses.dataclass(frozen=True)
class Run:
    """One call of `fine_tune`, complete before anything changes.

    Args:
        model: The compiled model.
        inputs: The checked data and labels.
        groups: Its layer groups.
        strategy: The chosen strategy.
        unfreezing: The callback that follows the phases of the strategy.
        data: Training data: `Epochs` of arrays, a dataset, or a PyDataset.
        validation_data: Validation data of the same types, or None.
        epochs: Epochs of all phases together.
        num_batches: Batches per epoch.
        num_examples: Number of labeled examples.
        batch_size: Examples per batch, the largest number if batches differ.
        head: The state of the head when the run began, as from `head_state`.
        share: Share of the learning rate at which all groups train, but for a new
            head.
        seed: Seed for the order of arrays. A folder with a seed replaces it.
        clock: The callback that stores the current epoch for all data of the run.
        callbacks: The callbacks of the user.
        history: The History that the training fills.
        folder: The folder that saves the run, or None.
        done: Epochs that were done before this call.
        finished: Whether the run ended before this call.
        verbose: As in `fit`.
        settings: Other arguments of `fit`.
        class_names: Names of the classes in the order of their numbers, or None.
        kept: Layers and weights that stay frozen in all phases.
        made_labels: Whether the preprocessor of the model creates the labels.
        cached: The head that can train on cached features, or None.
        uncached: Why there is no such head, or None.
        recipe: The number of the recipe with which the run began.
    """

    model: keras.Model
    inputs: Inputs
    groups: LayerGroups
    strategy: Strategy
    unfreezing: GradualUnfreezing
    data: Any
    validation_data: Any
    epochs: int
    num_batches: int
    num_examples: int
    batch_size: int
    head: str
    share: float
    seed: int
    clock: Clock
    callbacks: tuple[keras.callbacks.Callback, ...]
    history: keras.callbacks.History
    folder: RunFolder | None
    done: int
    finished: bool
    verbose: int
    settings: dict
    class_names: tuple[str, ...] | None
    kept: KeptFrozen
    made_labels: bool
    cached: CachedHead | None
    uncached: str | None
    recipe: int

    @classmethod
    def of(
        cls,
        call: Call,
        candidate: Candidate,
        *,
        pilot_seed: int | None = None,
        inputs: Inputs | None = None,
    ) -> Run:
        """Return the run for the arguments of `fine_tune`, without any change.

        Args:
            call: The call.
            candidate: What to do with the model. "auto" means the default without a
                pilot.
            pilot_seed: Seed of the pilot that chose it. Defaults to None: no pilot.
            inputs: The inputs of another run of the same call. Defaults to None, which
                reads and checks them.

        Raises:
            TypeError: If the type of `model` or of the data is unknown.
            ValueError: If an argument cannot be used (see `fine_tune`).
        """
        model, data, validation_data, epochs, directory, frozen, settings = call
        check_compiled(model)
        check_replicas(model)
        epochs = whole_number("epochs", epochs)
        data, validation_data = without_none(data), without_none(validation_data)
        settings = check_settings(settings, data)
        batch_size, callbacks, verbose = map(
            settings.pop, ("batch_size", "callbacks", "verbose")
        )
        batch_norm = candidate.batch_norm
        inputs = inputs or checked_inputs(model, data, validation_data, batch_size)
        data, labels = inputs.data, inputs.labels
        if inputs.made and settings["class_weight"] is not None:
            raise ValueError(
                "You passed class_weight, but the preprocessor of the model creates "
                "the labels, which are tokens. Leave class_weight out."
            )
        settings["class_weight"] = class_weights(
            settings["class_weight"],
            labels,
            _keras.compile_arguments(model)["loss"],
            output_of(model),
            inputs.class_names,
        )
        if settings["class_weight"] is not None:
            data = without_booleans(data)
        groups, count = layer_groups(model), _num_examples(labels)
        kept = kept_frozen(groups, frozen)
        cached, uncached = cached_head(
            model, groups[-1], inputs.data, inputs.validation_data, inputs.made
        )
        began = begun_settings(directory)
        recipe = RECIPE if began is None else began.get("recipe", 0)
        chosen = model_strategy(
            candidate.strategy,
            groups,
            batch_norm,
            kept,
            epochs,
            count,
            None if began is None else began.get("phases"),
            converges=cached is not None,
            recipe=recipe,
        )
        if pilot_seed is not None:
            chosen = chosen._replace(reason="chosen by a pilot")
        phases = Phases(groups, chosen.phases, batch_norm, kept.ids)
        unfreezing = GradualUnfreezing.of_phases(phases)
        history, folder = keras.callbacks.History(), None
        if directory is not None:
            plan = {"strategy": chosen.name, "phases": to_config(chosen.phases)}
            plan |= {"epochs": epochs, "batch_size": batch_size}
            if recipe:
                plan["recipe"] = recipe
            if pilot_seed is not None:
                plan |= {"pilot": True, "share": candidate.share}
            plan |= identity(model, data, labels)
            if frozen or batch_norm != "frozen":
                plan |= {"frozen": str(frozen), "batch_norm": batch_norm}
            folder = RunFolder(directory, plan, history)
        seed = pilot_seed
        if seed is None:
            seed = int(np.random.randint(2**31))
        if folder and folder.state:
            seed = folder.seed
        clock = Clock()
        data = _in_epochs(model, data, batch_size, seed, clock, labels)
        validation_data = _in_epochs(
            model, inputs.validation_data, batch_size, 0, clock, inputs.held_out
        )
        return cls(
            model=model,
            inputs=inputs,
            groups=groups,
            strategy=chosen,
            unfreezing=unfreezing,
            data=data,
            validation_data=validation_data,
            epochs=epochs,
            num_batches=num_batches(data),
            num_examples=count,
            batch_size=math.ceil(count / num_batches(data)),
            head=model_head(groups, able_groups(groups, batch_norm, kept.ids)),
            share=candidate.share or default_share(model, recipe),
            seed=seed,
            clock=clock,
            callbacks=tuple(callbacks),
            history=history,
            folder=folder,
            done=folder.epoch if folder else 0,
            finished=bool(folder) and folder.finished,
            verbose=verbose,
            settings=settings,
            class_names=inputs.class_names,
            kept=kept,
            made_labels=inputs.made,
            cached=cached,
            uncached=uncached,
            recipe=recipe,
        )

    @property
    def head_epochs(self) -> int:
        """The number of epochs at the start in which only the head trains."""
        phases = self.unfreezing.phases
        if phases[0].groups != (self.groups.names[-1],):
            return 0
        return [*phases.starts()[1:], self.epochs][0]

    @property
    def thaws(self) -> list[int]:
        """The batches at which phases begin that unfreeze groups."""
        return [epoch * self.num_batches for epoch in self.strategy.thaws]

    @property
    def replicas(self) -> int:
        """The number of replicas that share a batch."""
        return replicas_of(self.model)

    @property
    def scheduled_batches(self) -> int | None:
        """The batches of the schedule, or None if a callback sets the rate."""
        if any(isinstance(callback, RATE_CALLBACKS) for callback in self.callbacks):
            return None
        return self.epochs * self.num_batches


def _num_examples(labels: Any) -> int:
    return len(keras.tree.flatten(labels)[0])


def _in_epochs(
    model: keras.Model,
    data: Any,
    batch_size: int | None,
    seed: int,
    clock: Clock,
    labels: Any,
) -> Any:
    """Return arrays as `Epochs`, and a dataset with its length."""
    if data is None:
        return None
    kind, replicas = kind_of(data), replicas_of(model)
    if kind == ARRAYS:
        batch_size = batch_size or BATCH_SIZE
        epochs = Epochs(data, batch_size, seed, clock, replicas)
        check_shares(model, epochs.sizes)
        return epochs
    if replicas > 1 and kind == DATASET:
        sizes = data.map(lambda *element: len(keras.tree.flatten(element)[-1]))
        check_shares(model, [int(size) for size in sizes.as_numpy_iterator()])
    if kind == DATASET:
        return with_length(data, _num_examples(labels))
    return data
