"""RankAllocation: an optimizer that gives the ranks of AdaLoRA to the layers."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.optimizers.discriminative import SUBCLASSES as DISCRIMINATIVE

# The weights of the triplets of a layer, in the order in which layers have them.
NAMES = ("adalora_p", "adalora_lambda", "adalora_q")
# Whether an optimizer that allocates the ranks makes an update in this thread.
_updating = threading.local()


@dataclasses.dataclass(frozen=True)
class Allocation:
    """When triplets are pruned, how many are left, and how importance is averaged.

    Args:
        target: Number of triplets that are left, summed over all layers.
        total_steps: Number of updates of the whole training.
        warmup_steps: Number of updates before the first triplet is pruned.
        final_steps: Number of last updates, in which the choice is fixed.
        interval: Number of updates between two choices.
        beta_1: Decay of the average of sensitivities.
        beta_2: Decay of the average of their deviations.
    """

    target: int
    total_steps: int
    warmup_steps: int
    final_steps: int
    interval: int
    beta_1: float
    beta_2: float

    @property
    def end(self) -> int:
        """The update at which the last choice is made."""
        return self.total_steps - self.final_steps

    def drops(self, total: int) -> np.ndarray:
        """Return the updates at which the budget falls by 1, in order.

        In update t the budget of `total` triplets is the whole part of `target + (total
        - target) * (1 - (t - warmup) / (end - warmup)) ** 3`.
        """
        steps = np.arange(self.warmup_steps, self.end + 1)
        left = 1 - (steps - self.warmup_steps) / (self.end - self.warmup_steps)
        budgets = ((total - self.target) * left**3 + self.target).astype("int64")
        falls = -np.diff(budgets, prepend=total)
        return np.repeat(steps, falls).astype("int32")


class RankAllocation:
    """Optimizer mixin: measure the importance of triplets, and prune the least ones.

    The state of the choice is in variables of the optimizer, because only these and
    the trained weights may change in an update on all backends. Gradients are those
    that the optimizer applies: summed over the replicas, and clipped.
    """

    def __init__(self, *args, allocation: Allocation | Mapping, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(allocation, Allocation):
            allocation = Allocation(**allocation)
        self.allocation = allocation

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the parent's slots, and two averages for each weight of a triplet.

        Raises:
            ValueError: If fewer triplets train than are to be left.
        """
        if self.built:
            return
        super().build(variables)
        found = triplets_in(variables)
        total = sum(variables[each[1]].shape[0] for each in found)
        if total < self.allocation.target:
            raise ValueError(
                f"{self.allocation.target} triplets are to be left, but only {total} "
                "train. Use the AdaLoRA for which this optimizer was made, or call "
                "compile() with a new optimizer."
            )
        members = {index for each in found for index in each}
        for name in ("sensitivity", "uncertainty"):
            # One place for each variable, so files and `kt.resume` know the slots.
            self.__dict__[name] = [
                self.add_variable_from_reference(variable, name=name)
                if index in members
                else None
                for index, variable in enumerate(variables)
            ]
        self.chosen = self.add_variable((total,), "ones", "float32", name="chosen")
        self.__dict__["triplets"] = found
        self.__dict__["drops"] = self.allocation.drops(total)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Average the sensitivity of a weight of triplets, then apply the step."""
        index = _keras.variable_index(self, variable)
        if self.sensitivity[index] is not None:
            self._observe(index, ops.abs(variable * gradient))
        super().update_step(gradient, variable, learning_rate)

    def apply(self, grads: Sequence, trainable_variables: Any = None) -> None:
        """Update `trainable_variables`, then prune triplets as the schedule says."""
        with _allocating():
            super().apply(grads, trainable_variables)
        if len(grads):
            variables = trainable_variables or _keras.trained_by(self)
            self._allocate({_keras.variable_index(self, x) for x in variables})

    def get_config(self) -> dict:
        """Return the config of the parent class, with the schedule."""
        own = {"allocation": dataclasses.asdict(self.allocation)}
        return super().get_config() | own

    def importance(self) -> list:
        """Return the importance of the triplets of each layer, as tensors.

        With s, the product of both averages of a weight, this is s of the value, plus
        the mean of s over each of the two vectors.
        """
        found = []
        for indices in self.triplets:
            p, value, q = map(self._importance_of, indices)
            count = value.shape[0]
            p = ops.mean(ops.reshape(p, (-1, count)), axis=0)
            found.append(value + p + ops.mean(ops.reshape(q, (count, -1)), axis=1))
        return found

    def _importance_of(self, index: int) -> Any:
        average, deviation = self.sensitivity[index], self.uncertainty[index]
        return ops.convert_to_tensor(average) * ops.convert_to_tensor(deviation)

    def _observe(self, index: int, sensitivity: Any) -> None:
        settings = self.allocation
        average, deviation = self.sensitivity[index], self.uncertainty[index]
        new = settings.beta_1 * average + (1 - settings.beta_1) * sensitivity
        apart = (1 - settings.beta_2) * ops.abs(sensitivity - new)
        self.assign(deviation, settings.beta_2 * deviation + apart)
        self.assign(average, new)

    def _allocate(self, updated: set[int]) -> None:
        """Choose the triplets that are left, if it is time, and zero the others."""
        values = [value for _, value, _ in self.triplets]
        part = [index for index in values if index in updated]
        if not part:
            return  # a phase in which only other weights train
        if len(part) < len(values):
            raise ValueError(
                f"Only {len(part)} of {len(values)} layers with AdaLoRA train in this "
                "phase. Ranks are given to all of them together. Train all in one "
                "phase, or use LoRA."
            )
        settings, step = self.allocation, ops.cast(self.iterations, "int32")
        budget = self.chosen.shape[0] - ops.sum(
            ops.cast(step >= ops.convert_to_tensor(self.drops), "int32")
        )
        last = ops.equal(step, settings.end)
        between = ops.logical_and(step > settings.warmup_steps, step < settings.end)
        due = ops.equal(step % settings.interval, 0)
        choose = ops.logical_or(last, ops.logical_and(between, due))
        chosen = ops.where(
            choose,
            largest(ops.concatenate(self.importance()), budget),
            ops.convert_to_tensor(self.chosen),
        )
        self.chosen.assign(chosen)
        kept = ops.where(ops.logical_or(choose, step > settings.end), chosen, 1.0)
        start = 0
        for index in values:
            variable = _keras.trained_by(self)[index]
            size = variable.shape[0]
            left = kept[start : start + size] > 0
            values = ops.convert_to_tensor(variable)
            variable.assign(ops.where(left, values, ops.zeros_like(values)))
            start += size


def largest(scores: Any, count: Any) -> Any:
    """Return 1 for the `count` largest of `scores`, and 0 for the others, as floats."""
    order = ops.top_k(scores, scores.shape[0])[1]
    return ops.cast(ops.argsort(order) < ops.cast(count, order.dtype), "float32")


def triplets_in(variables: Sequence[keras.Variable]) -> list[tuple[int, int, int]]:
    """Return the indices of P, the values and Q of each layer with triplets."""
    names = [variable.name for variable in variables]
    return [
        (index, index + 1, index + 2)
        for index in range(len(names) - 2)
        if tuple(names[index : index + 3]) == NAMES
    ]


def with_allocation(
    optimizer: keras.Optimizer, allocation: Allocation
) -> keras.Optimizer:
    """Return a new optimizer with the settings of `optimizer` that allocates ranks.

    Raises:
        ValueError: If the class of `optimizer` is not supported.
    """
    kind = type(optimizer)
    kind = next((x for x, made in SUBCLASSES.items() if made is kind), kind)
    if kind not in SUBCLASSES:
        names = [each.__name__ for each in SUBCLASSES]
        raise ValueError(
            f"{kind.__name__} cannot give ranks to layers. The supported classes are "
            f"{names}, without other subclasses."
        )
    settings = _keras.settings(optimizer) | {"allocation": allocation}
    if "layout" in settings:
        settings["layout"] = optimizer.rate_table
    return SUBCLASSES[kind](**settings)


@keras.saving.register_keras_serializable("keras_transfer")
class Allocated(keras.constraints.Constraint):
    """Constraint of the values of triplets: only `RankAllocation` may update them.

    Another optimizer would train all triplets to the end, without an error.
    """

    def __call__(self, w: Any) -> Any:
        """Return `w`.

        Raises:
            ValueError: If another optimizer makes the update.
        """
        if not getattr(_updating, "now", False):
            raise ValueError(
                "The optimizer does not give ranks to layers, so AdaLoRA would train "
                "at its initial rank, and pruned triplets would return. Pass "
                "callbacks=[kt.callbacks.RankBudget()] to fit, or use LoRA."
            )
        return w


@contextlib.contextmanager
def _allocating() -> Iterator[None]:
    _updating.now = True
    try:
        yield
    finally:
        _updating.now = False


def _subclass(parent: type[keras.Optimizer]) -> type[keras.Optimizer]:
    name = f"Budgeted{parent.__name__}"
    doc = f"{parent.__name__} that gives the ranks of AdaLoRA to the layers."
    kind = type(name, (RankAllocation, parent), {"__doc__": doc})
    kind.__module__ = __name__
    return keras.saving.register_keras_serializable("keras_transfer")(kind)


SUBCLASSES = {
    parent: _subclass(parent) for parent in (*DISCRIMINATIVE, *DISCRIMINATIVE.values())
}
