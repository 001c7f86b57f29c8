"""Phases of training: which layer groups train in which epochs."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import keras

from keras_transfer._arguments import whole_number
from keras_transfer._keras import flags_kept
from keras_transfer._keras import flat_layers
from keras_transfer._keras import own_weights
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.groups import LayerGroup
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.backbones.groups import UNUSED
from keras_transfer.backbones.training_flags import pinned
from keras_transfer.backbones.training_flags import train_only
from keras_transfer.optimizers.rate_table import check_rate


@dataclasses.dataclass(frozen=True)
class Phase:
    """One phase of a schedule: the groups that train, the epochs and the rate.

    Args:
        groups: A layer group or its name, or a list of these. All other groups are
            frozen during the phase.
        epochs: Int above 0, number of epochs. Defaults to None, which lasts until
            training ends and is allowed in the last phase only.
        rate: Float above 0 that multiplies the learning rate during the phase. Defaults
            to 1.0.

    Example:
        ```python
        import keras_transfer as kt

        phase = kt.callbacks.Phase("head", 2)
        assert phase.groups == ("head",)
        ```

    Raises:
        ValueError: If there is no group, if a group is named twice, or if a number is
            out of its range.

    Reference:
        Howard and Ruder 2018, Universal Language Model Fine-tuning for Text
        Classification, arXiv:1801.06146, section 3.3.
    """

    groups: tuple[str, ...]
    epochs: int | None = None
    rate: float = 1.0

    def __post_init__(self) -> None:
        groups = self.groups
        if isinstance(groups, str | LayerGroup) or not isinstance(groups, Iterable):
            groups = (groups,)
        names = tuple(getattr(group, "name", group) for group in groups)
        if not all(isinstance(name, str) for name in names):
            raise TypeError(
                f"The groups of a phase are {names}, but names must be strings. Pass "
                "layer groups or their names by strings."
            )
        object.__setattr__(self, "groups", names)
        if not names:
            raise ValueError(
                "A phase names no groups, so nothing would train in it. Name at least "
                "one group."
            )
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"A phase names the groups {twice} more than once: {names}. Name each "
                "group once."
            )
        if self.epochs is not None:
            object.__setattr__(self, "epochs", whole_number("epochs", self.epochs))
        object.__setattr__(self, "rate", check_rate("phase", self.rate))

    @classmethod
    def of(cls, value: Phase | Mapping | Sequence) -> Phase:
        """Return a phase from a `Phase`, a dict, or (groups, epochs, rate)."""
        if isinstance(value, Phase):
            return value
        names = [field.name for field in dataclasses.fields(cls)]
        if isinstance(value, Mapping) and set(value) <= set(names):
            return cls(**value)
        if isinstance(value, tuple | list) and 1 < len(value) <= len(names):
            return cls(*value)
        raise TypeError(
            f"{value!r} is not a phase. Write Phase(groups, epochs), a tuple (groups, "
            f"epochs) or (groups, epochs, rate), or a dict with keys from {names}."
        )


def first_epochs(phases: Sequence[Phase]) -> list[int]:
    """Return the first epoch of each phase."""
    return [0, *itertools.accumulate(phase.epochs for phase in phases[:-1])]


class Phases(Sequence):
    """Phases in order, bound to the layer groups that they name.

    Print it to see which groups train in which epochs.

    Args:
        groups: The layer groups of a model.
        phases: The phases, in order.
        batch_norm: "frozen" or "train", as in `GradualUnfreezing`.
        kept: Ids of layers and weights that no phase trains.

    Raises:
        ValueError: If a group is unknown, if a phase trains nothing or is the same as
            the phase before it, or if a phase without an end is not the last one.
    """

    def __init__(
        self,
        groups: LayerGroups,
        phases: Iterable[Phase],
        batch_norm: str,
        kept: Collection[int] = frozenset(),
    ) -> None:
        self.groups = groups
        self.batch_norm = batch_norm
        self.kept = kept
        self._phases = tuple(phases)
        self._trainable = _trainable(groups, batch_norm, kept)
        if not self._phases:
            raise ValueError(
                "There are no phases, so nothing would train. Pass at least one phase."
            )
        for number, phase in enumerate(self):
            self._check(number, phase)

    @classmethod
    def from_head_down(
        cls, groups: LayerGroups, epochs: int, batch_norm: str
    ) -> Phases:
        """Return the schedule that unfreezes one more group in each phase."""
        learnable = _trainable(groups, batch_norm, ())
        names, phases = (), []
        for name in reversed(groups.names):
            names = (name, *names)
            # A group with only frozen BatchNorm joins the phase of the next group.
            if learnable[name]:
                phases.append(Phase(names, epochs))
        if phases:
            phases[-1] = Phase(groups.names)
        return cls(groups, phases, batch_norm)

    def layers(self, phase: Phase) -> list[keras.Layer]:
        """Return the layers that train in `phase`."""
        return [
            layer
            for name in phase.groups
            for layer in self.groups[name].layers
            if _trains(layer, name, self.groups, self.batch_norm, self.kept)
        ]

    def training_groups(self, phase: Phase) -> tuple[str, ...]:
        """Return the groups of `phase` with a weight that trains."""
        return tuple(name for name in phase.groups if self._trainable[name])

    def variables(self, *phases: Phase) -> list[keras.Variable]:
        """Return the variables that any of `phases` trains, in the model's order."""
        names = {name for phase in phases for name in phase.groups}
        learning = {id(v) for name in names for v in self._trainable[name]}
        return [v for v in self.groups.model.weights if id(v) in learning]

    def num_parameters(self, *phases: Phase) -> int:
        """Return the number of parameters that any of `phases` trains."""
        return sum(math.prod(variable.shape) for variable in self.variables(*phases))

    def __getitem__(self, number: int) -> Phase:
        return self._phases[number]

    def __len__(self) -> int:
        return len(self._phases)

    def _check(self, number: int, phase: Phase) -> None:
        for name in phase.groups:
            self.groups[name]  # for an unknown name, raises and suggests a similar one
        if phase.epochs is None and number < len(self) - 1:
            raise ValueError(
                f"Phase {number} has epochs=None, so phase {number + 1} would never "
                f"start. Give phase {number} a number of epochs."
            )
        before = self[number - 1] if number else None
        if before and (set(phase.groups), phase.rate) == (
            set(before.groups),
            before.rate,
        ):
            raise ValueError(
                f"Phases {number - 1} and {number} are the same: {phase.groups}. "
                "Replace them with one phase of more epochs."
            )
        if not self.variables(phase):
            raise ValueError(
                f"Phase {number} trains nothing: the groups {phase.groups} have no "
                f"weight that can train (batch_norm={self.batch_norm!r}). Add a group "
                "to the phase, or remove the phase."
            )

    def starts(self) -> list[int]:
        """Return the first epoch of each phase."""
        return first_epochs(self)

    def __str__(self) -> str:
        rows = [("phase", "epochs", "rate", "parameters", "groups that train")]
        for number, (phase, start) in enumerate(zip(self, self.starts(), strict=True)):
            last = number == len(self) - 1  # the last phase lasts until training ends
            end = "" if last else start + phase.epochs - 1
            count = self.num_parameters(phase)
            span = str(start) if end == start else f"{start}-{end}"
            names = ", ".join(phase.groups)
            rows.append((str(number), span, f"{phase.rate:g}", f"{count:,}", names))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            "  ".join([*(text.rjust(w) for text, w in zip(row, widths)), row[4]])
            for row in rows
        ]
        learning = {name for phase in self for name in phase.groups}
        never = [name for name in self.groups.names if name not in learning]
        if never:
            lines.append(f"always frozen: {', '.join(never)}")
        below = [layer for group in self.groups[:-1] for layer in group.layers]
        if self.batch_norm == "frozen" and any(map(_is_batch_norm, below)):
            lines.append(f"BatchNorm below {self.groups.names[-1]}: always frozen")
        return "\n".join(lines)


def able_groups(
    groups: LayerGroups, batch_norm: str, kept: Collection[int] = frozenset()
) -> list[str]:
    """Return the names of the groups with a weight that can train in `Phases`."""
    learnable = _trainable(groups, batch_norm, kept)
    return [name for name in groups.names if learnable[name]]


def to_config(phases: Iterable[Phase]) -> list[dict]:
    """Return phases as dicts that JSON can store."""
    return [dataclasses.asdict(each) | {"groups": list(each.groups)} for each in phases]


def check_can_unfreeze(groups: LayerGroups, names: Iterable[str]) -> None:
    """Check that no group in `names` is inside a FrozenBackbone.

    Raises:
        ValueError: If a group is inside a FrozenBackbone.
    """
    named = {
        id(variable)
        for group in groups
        if group.name in names
        for variable in group.variables
    }
    for layer in flat_layers(groups.model):
        if not isinstance(layer, FrozenBackbone):
            continue
        if any(id(weight) in named for weight in layer.weights):
            raise ValueError(
                f"The model contains the FrozenBackbone {layer.name!r}, which cannot "
                "be unfrozen, so gradual unfreezing would end at the layers above it. "
                "Build the model on its `FrozenBackbone.layer` instead."
            )


def _trainable(
    groups: LayerGroups, batch_norm: str, kept: Collection[int]
) -> dict[str, list[keras.Variable]]:
    """Return the weights of each group that can train.

    Weights that were frozen one by one cannot.
    """
    model = groups.model
    fixed = {*pinned(model), *kept}
    with flags_kept(model):
        train_only(model, [each for each in model.weights if id(each) not in fixed])
        able = {id(variable) for variable in model.trainable_variables}
    found = {}
    for group in groups:
        ids = {id(variable) for variable in group.variables} & able
        layers = (
            layer
            for layer in group.layers
            if _trains(layer, group.name, groups, batch_norm, kept)
        )
        weights = (weight for layer in layers for weight in own_weights(layer))
        found[group.name] = [weight for weight in weights if id(weight) in ids]
        if group.name == UNUSED:
            found[group.name] = []  # these layers get no gradient
    return found


def _trains(
    layer: keras.Layer,
    group: str,
    groups: LayerGroups,
    batch_norm: str,
    kept: Collection[int],
) -> bool:
    frozen = batch_norm == "frozen" and group != groups.names[-1]
    return not (frozen and _is_batch_norm(layer)) and id(layer) not in kept


def _is_batch_norm(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)
