"""Phases of training: which layer groups learn, from which epoch to which."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import keras

from keras_transfer._keras import flags_kept
from keras_transfer._keras import train_only
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.optimizers.layout import check_rate


@dataclasses.dataclass(frozen=True)
class Phase:
    """One phase of a schedule: what learns, how long, at what share of the rate.

    Args:
        groups: Name of a layer group, or a list of names; the others are frozen.
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
        names = self.groups
        names = (names,) if isinstance(names, str) else tuple(names)
        object.__setattr__(self, "groups", names)
        if not names:
            raise ValueError("A phase names no groups, so nothing would learn in it.")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"A phase names the groups {twice} twice: {names}.")
        if self.epochs is not None and (
            not isinstance(self.epochs, int) or self.epochs < 1
        ):
            raise ValueError(
                f"A phase has epochs={self.epochs!r}. It must be a whole number above "
                "0, or None in the last phase."
            )
        check_rate("phase", self.rate)

    @classmethod
    def of(cls, value: Phase | Mapping | Sequence) -> Phase:
        """Return a phase from itself, a dict, or (groups, epochs, rate)."""
        if isinstance(value, Phase):
            return value
        if isinstance(value, Mapping):
            return cls(**value)
        return cls(*value)


class Phases(tuple):
    """Phases in order, bound to the layer groups that they name.

    Printing it shows what will learn when.
    """

    groups: LayerGroups
    batch_norm: str

    @classmethod
    def bind(
        cls, groups: LayerGroups, phases: Iterable[Phase], batch_norm: str
    ) -> Phases:
        """Return the phases with their groups checked.

        Raises:
            ValueError: If a group is unknown, a phase trains nothing or repeats the
                one before, or a phase after an endless one would never come.
        """
        self = cls(phases)
        self.groups = groups
        self.batch_norm = batch_norm
        for number, phase in enumerate(self):
            for name in phase.groups:
                groups[name]  # raises with the nearest name
            last = number == len(self) - 1
            if phase.epochs is None and not last:
                raise ValueError(
                    f"Phase {number} has no end, so phase {number + 1} would never "
                    "come. Give it a number of epochs."
                )
            if number and (set(phase.groups), phase.rate) == (
                set(self[number - 1].groups),
                self[number - 1].rate,
            ):
                raise ValueError(
                    f"Phases {number - 1} and {number} are the same: {phase.groups}. "
                    "Make them one phase of more epochs."
                )
            if not self.variables(phase):
                raise ValueError(
                    f"Phase {number} trains nothing: the groups {phase.groups} hold no "
                    f"weight that can learn (batch_norm={batch_norm!r})."
                )
        return self

    @classmethod
    def from_head_down(
        cls, groups: LayerGroups, epochs: int, batch_norm: str
    ) -> Phases:
        """Return the schedule that thaws one more group at a time."""
        empty = cls()
        empty.groups = groups
        empty.batch_norm = batch_norm
        names, phases = (), []
        for name in reversed(groups.names):
            names = (name, *names)
            # A group of frozen BatchNorm alone thaws together with the next one.
            if empty.variables(Phase(name)):
                phases.append(Phase(names, epochs))
        if phases:
            phases[-1] = dataclasses.replace(phases[-1], groups=names, epochs=None)
        return cls.bind(groups, phases, batch_norm)

    def layers(self, phase: Phase) -> list[keras.Layer]:
        """Return the layers that learn in `phase`."""
        last = self.groups.names[-1]
        return [
            layer
            for name in phase.groups
            for layer in self.groups[name].layers
            if self.batch_norm == "train" or name == last or not _is_batch_norm(layer)
        ]

    def variables(self, *phases: Phase) -> list[keras.Variable]:
        """Return what learns in any of `phases`, in the order of the model."""
        model = self.groups.model
        with flags_kept(model):
            train_only(model, [each for phase in phases for each in self.layers(phase)])
            return list(model.trainable_variables)

    def starts(self) -> list[int]:
        """Return the first epoch of each phase."""
        starts = [0]
        for phase in self[:-1]:
            starts.append(starts[-1] + phase.epochs)
        return starts

    def to_config(self) -> list[dict]:
        """Return the phases as JSON-plain dicts."""
        return [
            dataclasses.asdict(phase) | {"groups": list(phase.groups)} for phase in self
        ]

    def __str__(self) -> str:
        rows = [("phase", "epochs", "rate", "parameters", "groups that learn")]
        for number, (phase, start) in enumerate(zip(self, self.starts(), strict=True)):
            end = "" if phase.epochs is None else start + phase.epochs - 1
            count = sum(math.prod(variable.shape) for variable in self.variables(phase))
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


def _is_batch_norm(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)
