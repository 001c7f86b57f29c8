"""The settings and tensors of a technique in the files of Hugging Face PEFT."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class PeftFormat:
    """The settings of a technique in adapter_config.json.

    A recipe whose arguments have `alpha` also has `rank`, `rank_pattern` and
    `alpha_pattern`, as `RankedAdapter` has, and its parts have `rank` and `scaling`.

    Args:
        settings: The settings that identify the technique: `peft_type`, and flags such
            as `use_dora`.
        arguments: Dict from the recipe's arguments to PEFT's names for them.
        starts: Dict from each of PEFT's initialization settings to the values that do
            not change the base model's own weights. Saving writes True. Defaults to no
            settings.
        ignored: Other settings that do not affect the computation. Defaults to none.
        divisor: Function from the rank to the number by which PEFT divides alpha.
            Defaults to the rank itself.
        remedy: The end of the error for an initialization that `starts` does not list:
            what to do in PEFT. Defaults to `""`.
        biases: The supported values of PEFT's `bias`. Defaults to `("none",)`.
        infix: PEFT's name for its copy of a whole module, in a technique that trains
            such copies instead of parts. Defaults to None.
        blocks: Whether PEFT has `layers_to_transform` for the technique. Defaults to
            True.
        shared: Names of tensors that belong to no module. A technique with such tensors
            has one vector for a fused projection, and its parts here have one each.
            Defaults to none.
        whole: Whether the weights of a fused projection cannot be split between its
            layers in Keras. Defaults to False.
    """

    settings: Mapping[str, object]
    arguments: Mapping[str, str]
    starts: Mapping[str, tuple] = dataclasses.field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    divisor: Callable[[int], float] = float
    remedy: str = ""
    biases: tuple[str, ...] = ("none",)
    infix: str | None = None
    blocks: bool = True
    shared: tuple[str, ...] = ()
    whole: bool = False

    @property
    def ranked(self) -> bool:
        """Whether each module has a rank and an alpha."""
        return "alpha" in self.arguments

    @property
    def transposes(self) -> bool:
        """Whether PEFT has the technique for weights with a row for each input."""
        return "fan_in_fan_out" in self.known

    @property
    def known(self) -> set[str]:
        """All settings that are read or ignored."""
        return {*self.settings, *self.arguments.values(), *self.starts, *self.ignored}

    def is_of(self, config: Mapping[str, object]) -> bool:
        """Return whether `config` describes this technique."""
        return all((config.get(k) or False) == v for k, v in self.settings.items())

    def rank_and_alpha(
        self, config: Mapping[str, object]
    ) -> tuple[int | None, float | None]:
        """Return the rank and the alpha of modules that match no pattern, or None."""
        names = (self.arguments.get(name) for name in ("rank", "alpha"))
        rank, alpha = (config[name] if name else None for name in names)
        return rank, alpha


@dataclasses.dataclass(frozen=True)
class PeftTensor:
    """A weight of a part as a tensor in adapter_model.safetensors.

    Args:
        weight: Name of the weight.
        axes: Names of the tensor's axes, from `"rank"`, `"inputs"`, `"outputs"`, and
            `"one"` for an axis of size 1 that the weight does not have.
        own_axes: The same names in the order of the weight's axes.
        rest: The value for outputs of a module whose layer has no part, or None if
            there is no value without an effect. Defaults to None.
        scaled: Whether the part's scaling multiplies what the weight adds. Defaults to
            False.
    """

    weight: str
    axes: tuple[str, ...]
    own_axes: tuple[str, ...]
    rest: float | None = None
    scaled: bool = False

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the tensor's shape for the given size of each axis."""
        return tuple({"one": 1, **sizes}[axis] for axis in self.axes)

    def read(self, tensor: np.ndarray, at: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the weight's value.

        Args:
            tensor: The tensor of a module, which can be several layers in Keras.
            at: Dict from axis to the indices of the layer's entries in the tensor, in
                the layer's order.
        """
        index = [at.get(x, np.arange(n)) for x, n in zip(self.axes, tensor.shape)]
        order = [self.axes.index(axis) for axis in (*self.own_axes, *self._ones)]
        found = tensor[np.ix_(*index)].transpose(order).astype("float32")
        return found.reshape(found.shape[: len(self.own_axes)])

    def write(
        self, tensor: np.ndarray, value: np.ndarray, at: Mapping[str, np.ndarray]
    ) -> None:
        """Write the weight's value into `tensor` at the indices where `read` reads it.

        `at` contains the axes that are not written as a whole.
        """
        own = (*self.own_axes, *self._ones)
        value = value.reshape((*value.shape, *[1] * len(self._ones)))
        order = [own.index(axis) for axis in self.axes]
        index = [at.get(x, np.arange(n)) for x, n in zip(self.axes, tensor.shape)]
        tensor[np.ix_(*index)] = value.transpose(order)

    @property
    def _ones(self) -> list[str]:
        return [axis for axis in self.axes if axis == "one"]
