"""The learning rate factor of each variable: by object, or by position once saved."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import keras

from keras_transfer._arguments import positive
from keras_transfer._keras import decays
from keras_transfer.backbones.groups import LayerGroups

# The last part of the path of biases and of the weights of normalization layers.
BIAS_AND_NORMALIZATION = (r"(^|/)(bias|beta|gamma|scale)$",)

# The name that Keras gives to an unnamed weight. Its number counts in the process.
UNNAMED = re.compile(r"^variable(_\d+)?$")

# A key of `rates`: a layer group, or a group and a pattern for variable paths.
RateKey = str | tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Row:
    """One variable: position in model.weights, slot, decay, name, shape, flag.

    A variable is `idle` if no output depends on it. An idle variable is never in the
    trainable variables of the model, even if its flag is True.
    """

    weight: int
    slot: int
    decays: bool
    name: str
    shape: tuple[int, ...]
    trainable: bool = True
    idle: bool = False

    def matches(self, variable: keras.Variable) -> bool:
        """Return whether `variable` has the name and shape of this row."""
        names = [UNNAMED.sub("variable", name) for name in (self.name, variable.name)]
        return names[0] == names[1] and self.shape == tuple(variable.shape)


@dataclasses.dataclass(frozen=True)
class RateTable:
    """Slots with one factor each, and a row for each variable, in a fixed order.

    `variables` are the variable objects of the rows. It is None after loading, when
    only the positions are known.
    """

    slots: tuple[str, ...]
    factors: tuple[float, ...]
    rows: tuple[Row, ...]
    variables: tuple[keras.Variable, ...] | None = None

    @classmethod
    def of(
        cls,
        groups: LayerGroups,
        factors: Mapping[str, float],
        optimizer: keras.Optimizer,
        *,
        rates: Mapping[RateKey, float] | None = None,
        no_weight_decay: bool | Iterable[str] = False,
    ) -> RateTable:
        """Return the table for all weights of the model of `groups`."""
        slots = dict(factors)
        slot_of = {
            id(variable): group.name for group in groups for variable in group.variables
        }
        named = []
        for key, rate in (rates or {}).items():
            name, matched = _matched(groups, key)
            named.append(name)
            slots[name] = check_rate(name, rate)
            slot_of.update((id(variable), name) for variable in matched)
        used = set(slot_of.values())
        idle = [name for name in named if name not in used]
        if idle:
            raise ValueError(
                f"The rates {idle} have no effect, because later keys of `rates` match "
                "all their variables. Leave these rates out, or put the key that "
                "matches more variables first."
            )
        slots = {name: factor for name, factor in slots.items() if name in used}
        skipped = _undecayed(groups.model.weights, no_weight_decay, optimizer)
        names = list(slots)
        variables = groups.model.weights
        trained = {id(variable) for variable in groups.model.trainable_variables}
        rows = tuple(
            Row(
                weight,
                names.index(slot_of[id(variable)]),
                id(variable) not in skipped,
                variable.name,
                tuple(variable.shape),
                idle=variable.trainable and id(variable) not in trained,
            )
            for weight, variable in enumerate(variables)
        )
        table = cls(tuple(names), tuple(slots.values()), rows, tuple(variables))
        return table.excluding(optimizer)

    def bind(self, variables: Sequence[keras.Variable]) -> RateTable:
        """Return the table for `variables`, in their order.

        Raises:
            ValueError: If a variable has no row.
        """
        if self.variables is None:
            self._check_positions(variables)
            return dataclasses.replace(self, variables=tuple(variables))
        rows = {id(v): row for v, row in zip(self.variables, self.rows, strict=True)}
        unknown = [each.path for each in variables if id(each) not in rows]
        if unknown:
            raise ValueError(
                f"{len(unknown)} variables belong to no layer group of this "
                f"optimizer: {unknown[:5]}. The optimizer was made for another model, "
                "or layers were added later. Call discriminative() with the model that "
                "you fit."
            )
        chosen = tuple(rows[id(each)] for each in variables)
        return dataclasses.replace(self, rows=chosen, variables=tuple(variables))

    def excluding(self, optimizer: keras.Optimizer) -> RateTable:
        """Return the table without decay where `optimizer` excludes weight decay.

        A loaded table that is not bound to variables yet is returned unchanged.
        """
        if self.variables is None:
            return self
        rows = tuple(
            dataclasses.replace(row, decays=row.decays and decays(optimizer, variable))
            for row, variable in zip(self.rows, self.variables, strict=True)
        )
        return dataclasses.replace(self, rows=rows)

    def trained_now(self) -> list[keras.Variable]:
        """Return the variables that the model trains with its current flags."""
        pairs = zip(self.variables, self.rows, strict=True)
        return [each for each, row in pairs if each.trainable and not row.idle]

    def with_factors(self, factors: Iterable[float]) -> RateTable:
        """Return the table with new factors for its slots."""
        return dataclasses.replace(self, factors=tuple(factors))

    def row_factors(self, factors: Sequence[float]) -> list[float]:
        """Return the factor of each row, from the factors of the slots."""
        return [factors[row.slot] for row in self.rows]

    def to_config(self) -> dict:
        """Return the table as lists that JSON can store."""
        rows = self.rows
        if self.variables is not None:
            flags = [bool(each.trainable) for each in self.variables]
        else:
            flags = [row.trainable for row in rows]
        return {
            "slots": list(self.slots),
            "factors": list(self.factors),
            "weights": [row.weight for row in rows],
            "slot_of": [row.slot for row in rows],
            "decays": [row.decays for row in rows],
            "names": [row.name for row in rows],
            "shapes": [list(row.shape) for row in rows],
            "trainable": flags,
        }

    @classmethod
    def from_config(cls, config: Mapping) -> RateTable:
        """Return the table from the result of `to_config`."""
        columns = ("weights", "slot_of", "decays", "names", "shapes", "trainable")
        rows = tuple(
            Row(weight, slot, decay, name, tuple(shape), trainable)
            for weight, slot, decay, name, shape, trainable in zip(
                *(config[column] for column in columns), strict=True
            )
        )
        return cls(tuple(config["slots"]), tuple(config["factors"]), rows)

    def _check_positions(self, variables: Sequence[keras.Variable]) -> None:
        count = len(self.rows)
        if len(variables) == count:
            wrong = [v.path for v, r in zip(variables, self.rows) if not r.matches(v)]
            if not wrong:
                return
            what = f"{len(wrong)} of them differ in name or shape: {wrong[:5]}"
        else:
            what = f"this model trains {len(variables)}"
        raise ValueError(
            f"The optimizer's rates were saved for {count} variables, but {what}. "
            "The rates are assigned by position, so they would reach the wrong "
            "variables. If you load a `.keras` file that was saved while part of the "
            "model was frozen, use keras_transfer.resume(path), which loads all "
            "optimizer slots. To load the weights only, use keras.saving.load_model("
            "path, compile=False). If you copied a model or an optimizer, call "
            "discriminative() and compile() again."
        )


def check_rate(name: str, rate: float) -> float:
    """Return `rate` as a float if it is a valid factor.

    Raises:
        ValueError: If `rate` is not a finite number above 0.
    """
    why = (
        "it multiplies the learning rate. To stop the training of a group, freeze its "
        "layers, because a factor of 0 would cost as much as training them"
    )
    return positive(f"The rate of {name!r}", rate, why)


def found(pattern: str, variables: Iterable[keras.Variable]) -> list[keras.Variable]:
    """Return the variables whose path contains a match of the regular expression.

    Raises:
        ValueError: If `pattern` is not a regular expression.
    """
    try:
        return [each for each in variables if re.search(pattern, each.path)]
    except re.error as problem:
        raise ValueError(
            f"{pattern!r} is not a regular expression: {problem}. Fix the pattern."
        ) from problem


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a sentence that suggests the most similar name and lists all names."""
    names = list(names)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
    offer = f"Did you mean {close[0]!r}? " if close else ""
    return f"{offer}The names are {names}."


def _matched(groups: LayerGroups, key: RateKey) -> tuple[str, Sequence[keras.Variable]]:
    if isinstance(key, str):
        return key, groups[key].variables
    if not (isinstance(key, tuple) and len(key) == 2):
        raise TypeError(
            f"A key of `rates` is {key!r}. It must be the name of a layer group, or "
            "a pair (group name, regular expression for variable paths)."
        )
    group, pattern = key
    matched = found(pattern, groups[group].variables)
    if not matched:
        paths = [variable.path for variable in groups[group].variables]
        raise ValueError(
            f"The pattern {pattern!r} matches no variable of group {group!r}. The "
            f"variables of the group are {paths}. Fix the pattern or leave it out."
        )
    return f"{group}:{pattern}", matched


def _undecayed(
    variables: Sequence[keras.Variable],
    no_weight_decay: bool | Iterable[str],
    optimizer: keras.Optimizer,
) -> set[int]:
    if no_weight_decay is False:
        return set()
    if not optimizer.weight_decay:
        raise ValueError(
            f"no_weight_decay={no_weight_decay!r} has no effect, because the optimizer "
            f"has weight_decay={optimizer.weight_decay}. Give the optimizer a "
            "weight_decay, or leave no_weight_decay out."
        )
    if isinstance(no_weight_decay, str):
        raise TypeError(
            f"no_weight_decay={no_weight_decay!r} is a string. Pass True for biases "
            "and normalization weights, or a list of regular expressions."
        )
    patterns = (
        BIAS_AND_NORMALIZATION if no_weight_decay is True else tuple(no_weight_decay)
    )
    skipped = set()
    for pattern in patterns:
        matched = {id(each) for each in found(pattern, variables)}
        if not matched:
            raise ValueError(
                f"The pattern {pattern!r} of no_weight_decay matches no variable. The "
                f"paths end in {sorted({each.name for each in variables})}."
            )
        skipped |= matched
    return skipped
