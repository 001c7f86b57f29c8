"""The settings and tensors of a technique in the files of Hugging Face PEFT."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class PeftFormat:
    """The settings of a technique in adapter_config.json.

    A recipe with a `PeftFormat` also has `rank`, `alpha`, `rank_pattern` and
    `alpha_pattern`, as `RankedAdapter` has, and its parts have `rank` and `scaling`.

    Args:
        settings: The settings that identify the technique: `peft_type`, and flags such
            as `use_dora`.
        arguments: Dict from the recipe's arguments to PEFT's names for them. It has at
            least `rank` and `alpha`.
        starts: Dict from each of PEFT's initialization settings to the values that do
            not change the base model's own weights. Saving writes True. Defaults to no
            settings.
        ignored: Other settings that do not affect the computation. Defaults to none.
        divisor: Function from the rank to the number by which PEFT divides alpha.
            Defaults to the rank itself.
        remedy: The end of the error for an initialization that `starts` does not list:
            what to do in PEFT. Defaults to `""`.
    """

    settings: Mapping[str, object]
    arguments: Mapping[str, str]
    starts: Mapping[str, tuple] = dataclasses.field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    divisor: Callable[[int], float] = float
    remedy: str = ""

    @property
    def known(self) -> set[str]:
        """All settings that are read or ignored."""
        return {*self.settings, *self.arguments.values(), *self.starts, *self.ignored}

    def is_of(self, config: Mapping[str, object]) -> bool:
        """Return whether `config` describes this technique."""
        return all((config.get(k) or False) == v for k, v in self.settings.items())

    def rank_and_alpha(self, config: Mapping[str, object]) -> tuple[int, float]:
        """Return the rank and the alpha of modules that match no pattern."""
        return config[self.arguments["rank"]], config[self.arguments["alpha"]]


@dataclasses.dataclass(frozen=True)
class PeftTensor:
    """A weight of a part as a tensor in adapter_model.safetensors.

    Args:
        weight: Name of the weight.
        axes: Names of the tensor's axes, from `"rank"`, `"inputs"` and `"outputs"`.
        own_axes: The same names in the order of the weight's axes.
    """

    weight: str
    axes: tuple[str, ...]
    own_axes: tuple[str, ...]

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the tensor's shape for the given size of each axis."""
        return tuple(sizes[axis] for axis in self.axes)

    def read(self, tensor: np.ndarray, at: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the weight's value.

        Args:
            tensor: The tensor of a module, which can be several layers in Keras.
            at: Dict from axis to the indices of the layer's entries in the tensor, in
                the layer's order.
        """
        index = [at.get(x, np.arange(n)) for x, n in zip(self.axes, tensor.shape)]
        order = [self.axes.index(axis) for axis in self.own_axes]
        return tensor[np.ix_(*index)].transpose(order).astype("float32")

    def write(
        self, tensor: np.ndarray, value: np.ndarray, at: Mapping[str, np.ndarray]
    ) -> None:
        """Write the weight's value into `tensor` at the indices where `read` reads it.

        `at` contains all axes of the tensor.
        """
        order = [self.own_axes.index(axis) for axis in self.axes]
        tensor[np.ix_(*(at[axis] for axis in self.axes))] = value.transpose(order)
