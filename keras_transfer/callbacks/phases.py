"""Phases of training: which layer groups learn, from which epoch to which."""

from __future__ import annotations

import dataclasses
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
    """One phase of a schedule: what learns, how long, at what share of the rate.

    Args:
        groups: A layer group or its name, or a list of them; the others are frozen.
        epochs: Number of epochs, or None in the last phase: until training ends.
        rate: Factor above 0 of the learning rate during the phase. Default 1.

    Example:
        ```python
        import keras_transfer as kt

        phase = kt.callbacks.Phase("head", 2)
        assert phase.groups == ("head",)
        ```

    Raises:
        ValueError: If there is no group, a group is named twice, or a number is not
            in its range.

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
            raise TypeError(f"A phase names {names}. Name its groups by strings.")
        object.__setattr__(self, "groups", names)
        if not names:
            raise ValueError("A phase names no groups, so nothing would learn in it.")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"A phase names the groups {twice} twice: {names}.")
        if self.epochs is not None:
            object.__setattr__(self, "epochs", whole_number("epochs", self.epochs))
        object.__setattr__(self, "rate", check_rate("phase", self.rate))

    @classmethod
    def of(cls, value: Phase | Mapping | Sequence) -> Phase:
        """Return a phase from itself, a dict, or (groups, epochs, rate)."""
        if isinstance(value, Phase):
            return value
        names = [field.name for field in dataclasses.fields(cls)]
        if isinstance(value, Mapping) and set(value) <= set(names):
            return cls(**value)
        if isinstance(value, tuple | list) and 1 < len(value) <= len(names):
            return cls(*value)
        raise TypeError(
            f"{value!r} is not a phase. Write Phase(groups, epochs), a tuple (groups, "
            f"epochs) or (groups, epochs, rate), or a dict with keys of {names}."
        )


class Phases(Sequence):
    """Phases in order, bound to the layer groups that they name.

    Printing it shows what will learn when.

    Args:
        groups: The layer groups of a model.
        phases: The phases, in order.
        batch_norm: "frozen" or "train", as of `GradualUnfreezing`.
        kept: Ids of layers and of weights that learn in no phase.

    Raises:
        ValueError: If a group is unknown, a phase trains nothing or repeats the one
            before, or a phase after an endless one would never come.
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
        self._learnable = _learnable(groups, batch_norm, kept)
        if not self._phases:
            raise ValueError("There are no phases, so nothing would ever learn.")
        for number, phase in enumerate(self):
            self._check(number, phase)

    @classmethod
    def from_head_down(
        cls, groups: LayerGroups, epochs: int, batch_norm: str
    ) -> Phases:
        """Return the schedule that thaws one more group at a time."""
        learnable = _learnable(groups, batch_norm, ())
        names, phases = (), []
        for name in reversed(groups.names):
            names = (name, *names)
            # A group of frozen BatchNorm alone thaws together with the next one.
            if learnable[name]:
                phases.append(Phase(names, epochs))
        if phases:
            phases[-1] = Phase(groups.names)
        return cls(groups, phases, batch_norm)

    def layers(self, phase: Phase) -> list[keras.Layer]:
        """Return the layers that learn in `phase`."""
        return [
            layer
            for name in phase.groups
            for layer in self.groups[name].layers
            if _learns(layer, name, self.groups, self.batch_norm, self.kept)
        ]

    def variables(self, *phases: Phase) -> list[keras.Variable]:
        """Return what learns in any of `phases`, in the order of the model."""
        names = {name for phase in phases for name in phase.groups}
        learning = {id(v) for name in names for v in self._learnable[name]}
        return [v for v in self.groups.model.weights if id(v) in learning]

    def num_parameters(self, *phases: Phase) -> int:
        """Return the number of scalars that learn in any of `phases`."""
        return sum(math.prod(variable.shape) for variable in self.variables(*phases))

    def __getitem__(self, number: int) -> Phase:
        return self._phases[number]

    def __len__(self) -> int:
        return len(self._phases)

    def _check(self, number: int, phase: Phase) -> None:
        for name in phase.groups:
            self.groups[name]  # raises with the nearest name
        if phase.epochs is None and number < len(self) - 1:
            raise ValueError(
                f"Phase {number} has no end, so phase {number + 1} would never "
                "come. Give it a number of epochs."
            )
        before = self[number - 1] if number else None
        if before and (set(phase.groups), phase.rate) == (
            set(before.groups),
            before.rate,
        ):
            raise ValueError(
                f"Phases {number - 1} and {number} are the same: {phase.groups}. "
                "Make them one phase of more epochs."
            )
        if not self.variables(phase):
            raise ValueError(
                f"Phase {number} trains nothing: the groups {phase.groups} hold no "
                f"weight that can learn (batch_norm={self.batch_norm!r})."
            )

    def starts(self) -> list[int]:
        """Return the first epoch of each phase."""
        starts = [0]
        for phase in self[:-1]:
            starts.append(starts[-1] + phase.epochs)
        return starts

    def __str__(self) -> str:
        rows = [("phase", "epochs", "rate", "parameters", "groups that learn")]
        for number, (phase, start) in enumerate(zip(self, self.starts(), strict=True)):
            last = number == len(self) - 1  # it goes on until training ends
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
    """Return the names of the groups with a weight that can learn, as of `Phases`."""
    learnable = _learnable(groups, batch_norm, kept)
    return [name for name in groups.names if learnable[name]]


def to_config(phases: Iterable[Phase]) -> list[dict]:
    """Return phases as JSON-plain dicts."""
    return [dataclasses.asdict(each) | {"groups": list(each.groups)} for each in phases]


def check_thaws(groups: LayerGroups, names: Iterable[str]) -> None:
    """Check that no group of `names` is inside a FrozenBackbone.

    Raises:
        ValueError: If one is.
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
                f"The model holds the FrozenBackbone {layer.name!r}, which never "
                "thaws, so gradual unfreezing would end at the layers above it. "
                "Build the model on its `FrozenBackbone.layer` instead."
            )


def _learnable(
    groups: LayerGroups, batch_norm: str, kept: Collection[int]
) -> dict[str, list[keras.Variable]]:
    """Return what of each group can learn: not what was frozen one by one."""
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
            if _learns(layer, group.name, groups, batch_norm, kept)
        )
        weights = (weight for layer in layers for weight in own_weights(layer))
        found[group.name] = [weight for weight in weights if id(weight) in ids]
        if group.name == UNUSED:
            found[group.name] = []  # no gradient reaches it
    return found


def _learns(
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
