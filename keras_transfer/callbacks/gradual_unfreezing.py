"""Gradual unfreezing: more of the model learns as one `fit` goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_transfer import _keras
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.callbacks.phases import Phase
from keras_transfer.callbacks.phases import Phases
from keras_transfer.optimizers.discriminative import as_groups
from keras_transfer.optimizers.discriminative import check_supported
from keras_transfer.optimizers.discriminative import Discriminative
from keras_transfer.optimizers.discriminative import with_layout
from keras_transfer.optimizers.layout import Layout

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

    An ordinary optimizer is replaced, before training, by its discriminative subclass
    with factors of 1, which makes the same steps. The phase follows from the epoch
    alone, so `initial_epoch` and BackupAndRestore go on in the right one. With
    `monitor`, a phase may end before its epochs are over; its state is then part of
    the optimizer's, and this callback must stand before those that save it.

    Args:
        model_or_groups: The built model that will be fitted, or its `LayerGroups`.
            None takes the model from `fit`; its phases cannot be printed before.
        phases: List of `Phase`, or tuples (groups, epochs) or (groups, epochs, rate),
            or dicts. The rate multiplies the learning rate of the phase and never
            writes it. None thaws from the head down, one more group at a time.
        epochs_per_phase: Epochs of each phase if `phases` is None. Default 1.
        batch_norm: "frozen" (default) keeps BatchNorm layers below the last group
            frozen, weights and statistics; "train" thaws them with their group.
        monitor: Name of a value in the logs; the phase ends when it has not improved
            for `patience` epochs. Default None: by number of epochs only.
        patience: Epochs without improvement that end a phase. Default 1.
        mode: "min" or "max", which direction of `monitor` is better; "auto" is "max"
            if its name contains acc, auc, precision, recall or f1.

    Raises:
        ValueError: If a group is unknown, a phase trains nothing, the model holds a
            `FrozenBackbone`, or the optimizer cannot be used. The model is then as
            it was.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

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
        if batch_norm not in ("frozen", "train"):
            raise ValueError(
                f"batch_norm={batch_norm!r} is unknown. Use 'frozen' or 'train'."
            )
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode={mode!r} is unknown. Use 'auto', 'min' or 'max'.")
        if monitor is None and (patience, mode) != (1, "auto"):
            raise ValueError(
                f"patience={patience} and mode={mode!r} have no effect without a "
                "monitor. Name the value to watch, such as monitor='val_loss'."
            )
        if not isinstance(patience, int) or patience < 1:
            raise ValueError(f"patience={patience!r} must be a whole number above 0.")
        if phases is not None and epochs_per_phase != 1:
            raise ValueError(
                f"epochs_per_phase={epochs_per_phase} has no effect beside `phases`, "
                "which have their own epochs. Leave one of them out."
            )
        self.epochs_per_phase = Phase("any", epochs_per_phase).epochs
        self.batch_norm = batch_norm
        self.monitor = monitor
        self.patience = patience
        self.mode = mode
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
            config["phases"] = Phases(phases).to_config()
        return config | {"patience": self.patience, "mode": self.mode}

    @classmethod
    def from_config(cls, config: dict) -> GradualUnfreezing:
        """Return the callback, not yet bound to a model."""
        return cls(**config)

    def set_model(self, model: keras.Model) -> None:
        """Check everything and prepare the optimizer, before training starts."""
        super().set_model(model)
        if self._phases is None:
            self._bind(as_groups(model))
        self._check_covers(model)
        self._check_neighbours()
        self._prepare_optimizer(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Forget traces of an earlier compilation."""
        if self.model.train_function not in self._functions.values():
            self._functions.clear()
        self._started = False

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Freeze and thaw for the phase of `epoch`."""
        phase = self.phases[self._phase_at(epoch)]
        _keras.train_only(self.model, self.phases.layers(phase))
        self._optimizer.set_phase_factor(phase.rate)
        # fit() looks the function up at each step, so that exchanging it is enough.
        key = _keras.flags(self.model)
        if key not in self._functions:
            self.model.make_train_function(force=True)
            self._functions[key] = self.model.train_function
        self.model.train_function = self._functions[key]

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """End the phase early if the monitored value has stopped improving."""
        if self.monitor is None:
            return
        if self.monitor not in (logs or {}):
            raise ValueError(
                f"monitor={self.monitor!r} is not in the logs: {sorted(logs or {})}. "
                "A value of the validation needs validation_data in fit."
            )
        phase, start, wait, best = self._optimizer.phase_state
        value = float(logs[self.monitor])
        better = value > best if self._maximises() else value < best
        if epoch == start or better:
            wait, best = 0, value
        else:
            wait += 1
        if wait >= self.patience and phase < len(self.phases) - 1:
            phase, start, wait = phase + 1, epoch + 1, 0
        self._optimizer.set_phase_state(phase, start, wait, best)

    @property
    def _optimizer(self) -> keras.Optimizer:
        optimizer = self.model.optimizer
        return getattr(optimizer, "inner_optimizer", optimizer)

    def _bind(self, groups: LayerGroups) -> None:
        for layer in _keras.flat_layers(groups.model):
            if isinstance(layer, FrozenBackbone):
                raise ValueError(
                    f"The model holds the FrozenBackbone {layer.name!r}, which never "
                    "thaws, so gradual unfreezing would end at the layers above it. "
                    "Build the model on its `FrozenBackbone.layer` instead."
                )
        if self._wanted is None:
            self._phases = Phases.from_head_down(
                groups, self.epochs_per_phase, self.batch_norm
            )
        else:
            self._phases = Phases.bind(groups, self._wanted, self.batch_norm)
        if not self._phases:
            raise ValueError("There are no phases, so nothing would ever learn.")

    def _check_covers(self, model: keras.Model) -> None:
        covered = {id(v) for group in self.phases.groups for v in group.variables}
        missed = [each.path for each in model.weights if id(each) not in covered]
        if missed:
            raise ValueError(
                f"{len(missed)} weights of the model in `fit` belong to no layer "
                f"group: {missed[:5]}. The callback was made for another model; pass "
                "it the model that is fitted."
            )

    def _check_neighbours(self) -> None:
        before = True
        for callback in _keras.running_callbacks():
            before = before and callback is not self
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

    def _prepare_optimizer(self, model: keras.Model) -> None:
        if not model.optimizer:
            raise ValueError("The model has no optimizer. Call model.compile() first.")
        union = self.phases.variables(*self.phases)
        old = self._optimizer
        if not _keras.made_in_scope(old, model):
            raise ValueError(
                f"The {type(old).__name__} was made outside the tf.distribute scope of "
                "the model. Make it and call compile() inside `with strategy.scope():`."
            )
        ready = isinstance(old, Discriminative)
        known = {id(each) for each in _keras.trained_by(old)} if old.built else set()
        if ready and known.issuperset(id(each) for each in union):
            return
        if _keras.value(old.iterations) > 0:
            raise ValueError(
                f"The optimizer has made updates with slots for {len(known)} variables "
                f"and the phases train {len(union)}: it would lose its state. Reload a "
                "saved model with keras_transfer.resume(path), or compile anew."
            )
        with _keras.scope(model):
            if ready:
                layout = old.layout
                new = type(old).from_config(old.get_config() | {"layout": layout})
            else:
                check_supported(old)
                ones = dict.fromkeys(self.phases.groups.names, 1.0)
                layout = Layout.of(self.phases.groups, ones, old)
                new = with_layout(old, layout)
            _keras.replace_optimizer(model, new)
            model.optimizer.build(union)
        self._functions.clear()

    def _phase_at(self, epoch: int) -> int:
        """Return the number of the phase of `epoch`, from the state if it may vary."""
        if self.monitor is None:
            return sum(start <= epoch for start in self.phases.starts()) - 1
        phase, start, wait, best = self._optimizer.phase_state
        if epoch < start or (epoch == 0 and not self._started):
            phase, start, wait = 0, epoch, 0
        self._started = True
        while phase < len(self.phases) - 1 and (
            epoch - start >= self.phases[phase].epochs
        ):
            start += self.phases[phase].epochs
            phase, wait = phase + 1, 0
        self._optimizer.set_phase_state(phase, start, wait, best)
        return phase

    def _maximises(self) -> bool:
        words = ("acc", "auc", "precision", "recall", "f1")
        guess = any(word in self.monitor.lower() for word in words)
        return guess if self.mode == "auto" else self.mode == "max"
