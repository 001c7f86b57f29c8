"""suggest: targets and rank of LoRA for a budget of parameters or memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import keras

from keras_transfer._arguments import whole_number
from keras_transfer.adapters.lora import LoRA
from keras_transfer.adapters.plan import Plan
from keras_transfer.adapters.targets import head_layers

TARGETS = ("all-linear", None)
RANKS = tuple(2**power for power in range(9))
ENOUGH = 4  # rank of all matrices that is better than a greater one of some
# float32 copies of a trained weight: itself, its gradient, two moments of Adam.
COPIES = 4


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a LoRA costs, before it is attached.

    Args:
        targets: `"all-linear"`, or None for the default of the model family.
        rank: Rank of the pairs.
        parameters: Number of weights that train, with the head.
        layers: Number of layers with a pair.
        memory: Bytes of all weights, and of the gradients and two moments of Adam of
            those that train. The activations of a batch are not included.
    """

    targets: str | None
    rank: int
    parameters: int
    layers: int
    memory: int


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """A LoRA that fits a budget, and what others would cost. Prints as a table.

    Args:
        recipe: The `LoRA`, to attach.
        cost: Its cost.
        others: Costs of the other targets and ranks, also above the budget.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
        suggestion = kt.adapters.suggest(model, parameters=2_000)
        assert isinstance(suggestion, kt.adapters.Suggestion)
        suggestion.recipe.attach(model)
        ```

    Reference:
        Dettmers et al., 2023, "QLoRA: Efficient Finetuning of Quantized LLMs",
        arXiv:2305.14314, section 4.
    """

    recipe: LoRA
    cost: Cost
    others: tuple[Cost, ...]

    def __str__(self) -> str:
        lines = ["     targets     rank  layers   parameters       memory"]
        rows = sorted((self.cost, *self.others), key=lambda x: (str(x.targets), x.rank))
        for row in rows:
            mark = "->" if row is self.cost else "  "
            lines.append(
                f"{mark}   {row.targets or 'default':10}  {row.rank:4d}  "
                f"{row.layers:6d}  {row.parameters:11,}  {row.memory / 2**20:8.1f} MiB"
            )
        return "\n".join(lines)


def suggest(
    model: keras.Model, *, parameters: int | None = None, memory: int | None = None
) -> Suggestion:
    """Suggest targets and rank of LoRA for a budget, with what they cost.

    Pairs at all linear layers need a smaller rank than pairs at some of them. So the
    suggestion is `targets="all-linear"` with the largest power of two up to 256 that
    fits, if this is 4 or more. Otherwise it is the default targets of the model family
    if they allow a larger rank. The alpha is twice the rank. A budget says what is
    possible, not what is good: compare the result with `kt.compare`.

    Args:
        model: A built model. It does not change.
        parameters: Int, the most weights that may train, with the head. Defaults to
            None, no limit.
        memory: Int, the most bytes of the weights, and of the gradients and two moments
            of Adam in float32 of those that train. The activations of a batch are not
            included. Defaults to None, no limit.

    Returns:
        A `Suggestion`, whose `recipe` can be attached.

    Raises:
        ValueError: If neither or both budgets are passed, or if the smallest LoRA is
            larger.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
        suggestion = kt.adapters.suggest(model, parameters=1_100)
        assert suggestion.recipe.rank == 8
        assert suggestion.cost.parameters == 8 * (64 + 64)
        ```

    Reference:
        Dettmers et al., 2023, "QLoRA: Efficient Finetuning of Quantized LLMs",
        arXiv:2305.14314, section 4 (pairs at all linear layers).
    """
    if (parameters is None) == (memory is None):
        raise ValueError(
            f"parameters={parameters} and memory={memory}: pass one budget, a number "
            "of weights that train or a number of bytes."
        )
    name, most = ("parameters", parameters) if memory is None else ("memory", memory)
    most = whole_number(name, most)
    costs = _costs(model)
    fitting = [cost for cost in costs if getattr(cost, name) <= most]
    if not fitting:
        least = min(getattr(cost, name) for cost in costs)
        raise ValueError(
            f"{name}={most:,} is too small for {model.name!r}: the smallest LoRA needs "
            f"{least:,}."
            + (" Quantize the model with kt.quantize first." if memory else "")
        )
    chosen = max(
        fitting,
        key=lambda cost: (
            cost.targets == "all-linear" and cost.rank >= ENOUGH,
            cost.rank,
            cost.layers,
        ),
    )
    recipe = LoRA(chosen.rank, 2 * chosen.rank, chosen.targets)
    return Suggestion(recipe, chosen, tuple(x for x in costs if x is not chosen))


def _costs(model: keras.Model) -> list[Cost]:
    head = sum(_size(v.shape) for x in head_layers(model) for v in x.trainable_weights)
    held = sum(_size(v.shape) * _bytes(v.dtype) for v in model.weights)
    found: dict[tuple, Cost] = {}
    for targets in TARGETS:
        for rank in RANKS:
            try:
                plan = LoRA(rank, 2 * rank, targets).plan(model)
            except ValueError as refused:
                error = refused  # the rank fits no layer, or there are no such layers
                break
            pairs, layers = _pairs(plan), len(plan.pairs)
            memory = held + 4 * (COPIES * pairs + (COPIES - 1) * head)
            cost = Cost(targets, rank, pairs + head, layers, memory)
            # The default of a family can be all linear layers.
            found.setdefault((rank, pairs, layers), cost)
    if not found:
        raise error
    return list(found.values())


def _pairs(plan: Plan) -> int:
    return sum(
        _size(shape)
        for target, part in plan.pairs
        for shape, _ in part.weight_specs(target.layer).values()
    )


def _size(shape: Iterable[int]) -> int:
    return math.prod(shape)


def _bytes(dtype: str) -> int:
    return keras.ops.convert_to_numpy(keras.ops.zeros((), dtype)).dtype.itemsize
