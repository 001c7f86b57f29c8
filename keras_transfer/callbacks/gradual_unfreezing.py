"""Gradual unfreezing: `fit` trains more of the model from phase to phase."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import keras

from keras_transfer import _keras
from keras_transfer._arguments import one_of
from keras_transfer._arguments import whole_number
from keras_transfer.analysis.recorded_start import record_start
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.backbones.training_flags import train_only
from keras_transfer.callbacks.monitor import Monitor
from keras_transfer.callbacks.monitor import PhaseState
from keras_transfer.callbacks.phase_groups import note_phase_groups
from keras_transfer.callbacks.phases import check_can_unfreeze
from keras_transfer.callbacks.phases import Phase
from keras_transfer.callbacks.phases import Phases
from keras_transfer.callbacks.phases import to_config
from keras_transfer.distribute.check import check as check_replicas
from keras_transfer.optimizers.build_over_phases import build_over_phases
from keras_transfer.optimizers.discriminative import as_groups

CHECKPOINTS = (keras.callbacks.BackupAndRestore, keras.callbacks.ModelCheckpoint)


@keras.saving.register_keras_serializable(package="keras_transfer")
class GradualUnfreezing(keras.callbacks.Callback):
    """Train only the head first, then unfreeze group by group, in one `fit`.

    A new head gives large gradients at first, which would damage pretrained layers.
    Unfreezing from the head down trains a group for some time before the next group
    changes. Frozen layers get no gradients, so a step of an early phase is cheaper.
    Each distinct set of trainable layers is traced once. The optimizer is built once,
    over all variables that any phase trains, so its moments and its count of updates
    are kept. A group that is unfrozen late starts its bias correction then.

    The schedule decides which layers train, even if they were frozen before. A layer
    group that no phase names never trains. Variables that were frozen one by one inside
    a trainable layer, such as the kernels under LoRA, stay frozen.

    Before training, the callback replaces an ordinary optimizer with its discriminative
    subclass. All factors are 1, so the updates are the same, except for sparse
    gradients (see `discriminative`). The phase depends on the epoch number only, so
    `initial_epoch` and BackupAndRestore continue in the right phase. With `monitor`, a
    phase may end early. The optimizer then stores which phase is active, so put this
    callback before all callbacks that save the optimizer.

    The logs of each epoch get its `phase`, its `seconds` (with validation) and its
    `trainable_parameters`. `kt.report` shows them, with the weights at the start.

    Args:
        model_or_groups: The built model that will be fitted, or its `LayerGroups`.
            Defaults to None, the model of each `fit`; then print `phases` only after.
        phases: List of phases, each a `Phase`, a tuple (groups, epochs) or (groups,
            epochs, rate), or a dict. `rate` multiplies the learning rate during the
            phase; `optimizer.learning_rate` does not change. The last phase lasts until
            `fit` ends. Defaults to None: unfreeze one more group in each phase, from
            the head down.
        epochs_per_phase: Int, epochs of each phase if `phases` is None. Defaults to 1.
        batch_norm: "frozen" keeps the weights and statistics of BatchNorm layers below
            the last group frozen. "train" unfreezes them with their group. Defaults to
            "frozen".
        monitor: Name of a value in the logs. A phase also ends when this value has not
            improved for `patience` epochs. Defaults to None: phases end by their number
            of epochs only.
        patience: Int, epochs without improvement that end a phase. Defaults to 1.
        mode: "min" or "max", the better direction of `monitor`. "auto" finds the
            direction from the name of a loss, error, accuracy, AUC, precision, recall
            or F1. Defaults to "auto".

    Raises:
        ValueError: If a group is unknown, if a phase trains nothing or names a group
            inside a `FrozenBackbone`, if the optimizer is not supported, or if Keras
            cannot train the model on its replicas. The model does not change.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)]
        )
        model.compile("adam", "mse")
        unfreezing = kt.callbacks.GradualUnfreezing(model, epochs_per_phase=2)
        print(unfreezing.phases)
        x, y = np.ones((8, 4)), np.ones((8, 2))
        model.fit(x, y, epochs=4, callbacks=[unfreezing], verbose=0)
        ```

    Reference:
        Howard and Ruder 2018, Universal Language Model Fine-tuning for Text
        Classification, arXiv:1801.06146, section 3.3. Kumar et al. 2022, Fine-Tuning
        can Distort Pretrained Features and Underperform Out-of-Distribution,
        arXiv:2202.10054 (head first, then all: `lp_ft`).
    """

    def __init__(
        self,
        model_or_groups: keras.Model | LayerGroups | None = None,
        phases: Sequence | None = None,
        *,
        epochs_per_phase: int = 1,
        batch_norm: str = "frozen",
        monitor: str | None = None,
        patience: int = 1,
        mode: str = "auto",
    ) -> None:
        super().__init__()
        one_of("batch_norm", batch_norm, ("frozen", "train"))
        if monitor is None and (patience, mode) != (1, "auto"):
            raise ValueError(
                f"patience={patience} and mode={mode!r} have no effect without a "
                "monitor. Name the value to watch, such as monitor='val_loss'."
            )
        if phases is not None and epochs_per_phase != 1:
            raise ValueError(
                f"epochs_per_phase={epochs_per_phase} has no effect, because `phases` "
                "has its own epochs. Leave one of the two arguments out."
            )
        if isinstance(phases, str):
            raise TypeError(f"phases={phases!r} is a string. Pass a list of phases.")
        self.epochs_per_phase = whole_number("epochs_per_phase", epochs_per_phase)
        self.batch_norm = batch_norm
        self.monitor = monitor
        self.patience = patience
        self.mode = mode
        self._monitor = None if monitor is None else Monitor(monitor, patience, mode)
        self._given = model_or_groups is not None
        self._wanted = None if phases is None else [Phase.of(each) for each in phases]
        self._phases = None
        self._functions = _keras.FlagFunctions()
        if model_or_groups is not None:
            self._bind(as_groups(model_or_groups))

    @classmethod
    def lp_ft(
        cls,
        model_or_groups: keras.Model | LayerGroups,
        *,
        head_epochs: int = 1,
        **settings: Any,
    ) -> GradualUnfreezing:
        """Return a schedule that trains only the head first, and then all groups."""
        groups = as_groups(model_or_groups)
        phases = [Phase(groups.names[-1], head_epochs), Phase(groups.names)]
        return cls(groups, phases, **settings)

    @classmethod
    def of_phases(cls, phases: Phases) -> GradualUnfreezing:
        """Return a callback for phases that are already bound to a model."""
        check_can_unfreeze(
            phases.groups, [name for each in phases for name in each.groups]
        )
        callback = cls(phases=list(phases), batch_norm=phases.batch_norm)
        callback._given, callback._phases = True, phases
        return callback

    @property
    def phases(self) -> Phases:
        """The schedule. Print it to see which groups train in which epochs."""
        if self._phases is None:
            raise AttributeError(
                "The phases are not known before `fit`, because the callback was made "
                "without a model. Pass the model: GradualUnfreezing(model, ...)."
            )
        return self._phases

    def get_config(self) -> dict:
        """Return the arguments without the model, and known phases as dicts."""
        phases = self._wanted if self._phases is None else self._phases
        config = {name: getattr(self, name) for name in ("batch_norm", "monitor")}
        if phases is None:
            config["epochs_per_phase"] = self.epochs_per_phase
        else:
            config["phases"] = to_config(phases)
        return config | {"patience": self.patience, "mode": self.mode}

    @classmethod
    def from_config(cls, config: dict) -> GradualUnfreezing:
        """Return a callback that is not bound to a model yet."""
        return cls(**config)

    def set_model(self, model: keras.Model) -> None:
        """Check the model and the callbacks, and build the optimizer."""
        super().set_model(model)
        check_replicas(model)
        self._bind_to(model)
        self._check_neighbors()
        union = self.phases.variables(*self.phases)
        if build_over_phases(model, union, self.phases.groups):
            self._functions.clear()
        record_start(model)
        note_phase_groups(self.phases)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Start a new schedule."""
        self._started = False

    def on_train_end(self, logs: dict | None = None) -> None:
        """Remove the rate of the last phase from the optimizer."""
        self._optimizer.set_common_factor(1.0)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Freeze and unfreeze the layers for the phase of `epoch`."""
        self._now = self._phase_at(epoch)
        phase = self.phases[self._now]
        train_only(self.model, self.phases.variables(phase), self.phases.layers(phase))
        self._optimizer.set_common_factor(phase.rate)
        self._functions.use(self.model)
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Log the phase, and end it if the monitored value no longer improves."""
        if logs is not None:
            logs["phase"] = self._now
            logs["seconds"] = time.perf_counter() - self._began
            phase = self.phases[self._now]
            logs["trainable_parameters"] = self.phases.num_parameters(phase)
        if self.monitor is None:
            return
        state = PhaseState.kept_by(self._optimizer)
        length = self.phases[state.phase].epochs
        last_chance = length is not None and epoch + 1 - state.first_epoch >= length
        wait, best = self._monitor.update(
            logs or {}, state.wait, state.best, last_chance=last_chance
        )
        state = state._replace(wait=wait, best=best)
        if wait >= self.patience and state.phase < len(self.phases) - 1:
            state = state.next_phase(epoch + 1)
        state.keep_in(self._optimizer)

    @property
    def _optimizer(self) -> keras.Optimizer:
        optimizer = self.model.optimizer
        return _keras.inner_optimizer(optimizer)

    def _bind(self, groups: LayerGroups) -> None:
        if self._wanted is None:
            check_can_unfreeze(groups, groups.names)
            self._phases = Phases.from_head_down(
                groups, self.epochs_per_phase, self.batch_norm
            )
        else:
            named = [name for phase in self._wanted for name in phase.groups]
            check_can_unfreeze(groups, named)
            self._phases = Phases(groups, self._wanted, self.batch_norm)

    def _bind_to(self, model: keras.Model) -> None:
        """Bind the phases to the model in `fit`, and check that the model matches."""
        if self._phases is not None and self._phases.groups.model is model:
            return
        if not self._given:
            self._bind(as_groups(model))
            return
        groups = self._phases.groups
        grouped = {id(v) for group in groups for v in group.variables}
        if grouped != {id(v) for v in model.weights}:
            raise ValueError(
                f"The callback was made for the model {groups.model.name!r}, but `fit` "
                f"trains {model.name!r}, which has other weights. Make the callback "
                "with the model that you fit."
            )
        self._bind(LayerGroups(model, list(groups)))

    def _check_neighbors(self) -> None:
        before = True
        for callback in _keras.running_callbacks():
            before = before and callback is not self
            if isinstance(callback, GradualUnfreezing) and callback is not self:
                raise ValueError(
                    "There are two GradualUnfreezing in one `fit`. Each would undo the "
                    "changes of the other. Use one callback with one schedule."
                )
            if not isinstance(callback, CHECKPOINTS):
                continue
            path = str(getattr(callback, "filepath", ""))
            whole = not getattr(callback, "save_weights_only", True)
            if whole and path.endswith((".h5", ".hdf5")):
                raise ValueError(
                    f"ModelCheckpoint writes the whole model to {path!r}. The HDF5 "
                    "format mixes up weights of partly frozen layers. Use a path that "
                    "ends in '.keras'."
                )
            if self.monitor is not None and before:
                raise ValueError(
                    f"{type(callback).__name__} comes before GradualUnfreezing, so it "
                    "would save the phase of the previous epoch. Put GradualUnfreezing "
                    "first in the list of callbacks."
                )

    def _phase_at(self, epoch: int) -> int:
        """Return the index of the phase of `epoch`."""
        if self.monitor is None:
            return sum(start <= epoch for start in self.phases.starts()) - 1
        state = PhaseState.kept_by(self._optimizer)
        first, self._started = not self._started, True
        other = state.num_phases != len(self.phases)  # the state of another schedule
        if epoch < state.first_epoch or first and (epoch == 0 or other):
            state = PhaseState(num_phases=len(self.phases))
        while state.phase < len(self.phases) - 1:
            end = state.first_epoch + self.phases[state.phase].epochs
            if epoch < end:
                break
            state = state.next_phase(end)
        state.keep_in(self._optimizer)
        return state.phase
