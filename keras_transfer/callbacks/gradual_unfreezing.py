"""Gradual unfreezing: more of the model learns as one `fit` goes on."""

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
from keras_transfer.callbacks.phases import check_thaws
from keras_transfer.callbacks.phases import Phase
from keras_transfer.callbacks.phases import Phases
from keras_transfer.callbacks.phases import to_config
from keras_transfer.distribute.check import check as check_replicas
from keras_transfer.optimizers.build_over_phases import build_over_phases
from keras_transfer.optimizers.discriminative import as_groups

CHECKPOINTS = (keras.callbacks.BackupAndRestore, keras.callbacks.ModelCheckpoint)


@keras.saving.register_keras_serializable(package="keras_transfer")
class GradualUnfreezing(keras.callbacks.Callback):
    """Freeze all but the head, then thaw group after group inside one `fit`.

    A new head gives large gradients at first, which would spoil pretrained layers;
    thawing from the head down lets each group settle before the next one moves. What
    is frozen is really frozen, so that a step of an early phase is cheaper. Every
    distinct set of layers is traced once. The optimizer is built once, over all that
    any phase trains, so moments and the count of updates last; a group that thaws
    late starts with bias corrections of its own.

    The schedule decides which layers learn, also of those that were frozen before;
    what is never to learn is named in no phase. Single variables that were frozen
    under a layer that is not (the kernels under LoRA) stay so.

    An ordinary optimizer is replaced, before training, by its discriminative subclass
    with factors of 1, which makes the same steps but for sparse gradients (see
    `discriminative`). The phase follows from the epoch
    alone, so `initial_epoch` and BackupAndRestore go on in the right one. With
    `monitor`, a phase may end before its epochs are over; its state is then part of
    the optimizer's, and this callback must stand before those that save it.

    Each epoch's logs get the number of its `phase`, its `seconds`, validation included,
    and its `trainable_parameters`; the weights at the start are recorded: `kt.report`
    shows all that.

    Args:
        model_or_groups: The built model that will be fitted, or its `LayerGroups`.
            None takes the model of each `fit`; the phases cannot be printed before.
        phases: List of `Phase`, or tuples (groups, epochs) or (groups, epochs, rate),
            or dicts. The rate multiplies the learning rate of the phase and never
            writes it. The last phase lasts until `fit` ends. None thaws from the head
            down, one more group at a time.
        epochs_per_phase: Epochs of each phase if `phases` is None. Default 1.
        batch_norm: "frozen" (default) keeps BatchNorm layers below the last group
            frozen, weights and statistics; "train" thaws them with their group.
        monitor: Name of a value in the logs; the phase ends when it has not improved
            for `patience` epochs. Default None: by number of epochs only.
        patience: Epochs without improvement that end a phase. Default 1.
        mode: "min" or "max", which direction of `monitor` is better; "auto" knows it
            of losses, errors, accuracy, AUC, precision, recall and F1 by the name.

    Raises:
        ValueError: If a group is unknown, a phase trains nothing or names a group
            inside a `FrozenBackbone`, or the optimizer cannot be used, or Keras cannot
            train the model on its replicas. The model is then as it was.

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
                f"epochs_per_phase={epochs_per_phase} has no effect next to `phases`, "
                "which have their own epochs. Leave one of them out."
            )
        if isinstance(phases, str):
            raise TypeError(f"phases={phases!r} must be a list of phases.")
        self.epochs_per_phase = whole_number("epochs_per_phase", epochs_per_phase)
        self.batch_norm = batch_norm
        self.monitor = monitor
        self.patience = patience
        self.mode = mode
        self._monitor = None if monitor is None else Monitor(monitor, patience, mode)
        self._given = model_or_groups is not None
        self._wanted = None if phases is None else [Phase.of(each) for each in phases]
        self._phases = None
        self._functions = {}
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
        """Return the schedule that trains the head first and then all groups."""
        groups = as_groups(model_or_groups)
        phases = [Phase(groups.names[-1], head_epochs), Phase(groups.names)]
        return cls(groups, phases, **settings)

    @classmethod
    def of_phases(cls, phases: Phases) -> GradualUnfreezing:
        """Return the callback that follows phases which are bound to a model."""
        check_thaws(phases.groups, [name for each in phases for name in each.groups])
        callback = cls(phases=list(phases), batch_norm=phases.batch_norm)
        callback._given, callback._phases = True, phases
        return callback

    @property
    def phases(self) -> Phases:
        """The schedule; print it to see what will learn when."""
        if self._phases is None:
            raise AttributeError(
                "The phases are not known before `fit`, because no model was given. "
                "Pass it: GradualUnfreezing(model, ...)."
            )
        return self._phases

    def get_config(self) -> dict:
        """Return the arguments but the model; phases as dicts if they are known."""
        phases = self._wanted if self._phases is None else self._phases
        config = {name: getattr(self, name) for name in ("batch_norm", "monitor")}
        if phases is None:
            config["epochs_per_phase"] = self.epochs_per_phase
        else:
            config["phases"] = to_config(phases)
        return config | {"patience": self.patience, "mode": self.mode}

    @classmethod
    def from_config(cls, config: dict) -> GradualUnfreezing:
        """Return the callback, not yet bound to a model."""
        return cls(**config)

    def set_model(self, model: keras.Model) -> None:
        """Check everything and build the optimizer, before training starts."""
        super().set_model(model)
        check_replicas(model)
        self._bind_to(model)
        self._check_neighbors()
        union = self.phases.variables(*self.phases)
        if build_over_phases(model, union, self.phases.groups):
            self._functions.clear()
        record_start(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Begin anew."""
        self._started = False

    def on_train_end(self, logs: dict | None = None) -> None:
        """Take the rate of the last phase away again."""
        self._optimizer.set_common_factor(1.0)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Freeze and thaw for the phase of `epoch`."""
        self._now = self._phase_at(epoch)
        phase = self.phases[self._now]
        train_only(self.model, self.phases.variables(phase), self.phases.layers(phase))
        self._optimizer.set_common_factor(phase.rate)
        if self.model.train_function not in self._functions.values():
            self._functions.clear()  # compiled since, or changed by another callback
        # fit() looks the function up at each step, so that exchanging it is enough.
        weights = tuple(weight.trainable for weight in self.model.weights)
        key = (_keras.flags(self.model), weights)
        if key not in self._functions:
            _keras.remake_functions(self.model, "train")
            self._functions[key] = self.model.train_function
        self.model.train_function = self._functions[key]
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Log the phase, and end it if the monitored value has stopped improving."""
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
            check_thaws(groups, groups.names)
            self._phases = Phases.from_head_down(
                groups, self.epochs_per_phase, self.batch_norm
            )
        else:
            named = [name for phase in self._wanted for name in phase.groups]
            check_thaws(groups, named)
            self._phases = Phases(groups, self._wanted, self.batch_norm)

    def _bind_to(self, model: keras.Model) -> None:
        """Bind the phases to the model in `fit`, and check that it is the right one."""
        if self._phases is not None and self._phases.groups.model is model:
            return
        if not self._given:
            self._bind(as_groups(model))
            return
        groups = self._phases.groups
        grouped = {id(v) for group in groups for v in group.variables}
        if grouped != {id(v) for v in model.weights}:
            raise ValueError(
                f"The callback was made for the model {groups.model.name!r}, whose "
                f"weights are not those of {model.name!r} in `fit`. Pass it the model "
                "that is fitted."
            )
        self._bind(LayerGroups(model, list(groups)))

    def _check_neighbors(self) -> None:
        before = True
        for callback in _keras.running_callbacks():
            before = before and callback is not self
            if isinstance(callback, GradualUnfreezing) and callback is not self:
                raise ValueError(
                    "There are two GradualUnfreezing in one `fit`, which would undo "
                    "each other. Make one schedule of both."
                )
            if not isinstance(callback, CHECKPOINTS):
                continue
            path = str(getattr(callback, "filepath", ""))
            whole = not getattr(callback, "save_weights_only", True)
            if whole and path.endswith((".h5", ".hdf5")):
                raise ValueError(
                    f"ModelCheckpoint writes the whole model to {path!r}. That format "
                    "mixes up weights of partly frozen layers. Use a path ending in "
                    "'.keras'."
                )
            if self.monitor is not None and before:
                raise ValueError(
                    f"{type(callback).__name__} stands before GradualUnfreezing, so it "
                    "would save the phase of the epoch before. Put GradualUnfreezing "
                    "first in the list of callbacks."
                )

    def _phase_at(self, epoch: int) -> int:
        """Return the number of the phase of `epoch`, from the state if it may vary."""
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
