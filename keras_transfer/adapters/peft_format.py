"""How a technique lies in the files of Hugging Face PEFT: its settings, its tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class PeftFormat:
    """How adapter_config.json names a technique and its numbers.

    A recipe that has one also has `rank`, `alpha`, `rank_pattern` and `alpha_pattern`,
    as `RankedAdapter` does, and its parts have `rank` and `scaling`.

    Args:
        settings: What the technique is recognized by: `peft_type`, and flags that are
            on or off, such as `use_dora`.
        arguments: Dict of the recipe's arguments, `rank` and `alpha` at least, to
            PEFT's names of them.
        starts: Dict of PEFT's settings of the start to the values that leave the base
            model's own weights as they are. True is written.
        ignored: Other settings that have no bearing on what the adapter computes.
        divisor: What PEFT divides alpha by, from the rank. Default the rank itself.
        remedy: What to do in PEFT about a start that `starts` does not list; it ends
            the error. Default nothing.
    """

    settings: Mapping[str, object]
    arguments: Mapping[str, str]
    starts: Mapping[str, tuple] = dataclasses.field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    divisor: Callable[[int], float] = float
    remedy: str = ""

    @property
    def known(self) -> set[str]:
        """All settings that are read, or can be ignored."""
        return {*self.settings, *self.arguments.values(), *self.starts, *self.ignored}

    def is_of(self, config: Mapping[str, object]) -> bool:
        """Return whether `config` is one of this technique."""
        return all((config.get(k) or False) == v for k, v in self.settings.items())

    def rank_and_alpha(self, config: Mapping[str, object]) -> tuple[int, float]:
        """Return the rank and the alpha of modules that no pattern is for."""
        return config[self.arguments["rank"]], config[self.arguments["alpha"]]


@dataclasses.dataclass(frozen=True)
class PeftTensor:
    """A weight of a part as a tensor in adapter_model.safetensors.

    Args:
        weight: Name of the weight.
        axes: The tensor's axes there, of `"rank"`, `"inputs"` and `"outputs"`.
        own_axes: The same in the order that the weight has.
    """

    weight: str
    axes: tuple[str, ...]
    own_axes: tuple[str, ...]

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape there, by the size of each axis."""
        return tuple(sizes[axis] for axis in self.axes)

    def read(self, tensor: np.ndarray, at: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the weight's value.

        Args:
            tensor: The tensor of a module, which may be several layers in Keras.
            at: Dict of axis to where the layer's entries are in it, in their order.
        """
        index = [at.get(x, np.arange(n)) for x, n in zip(self.axes, tensor.shape)]
        order = [self.axes.index(axis) for axis in self.own_axes]
        return tensor[np.ix_(*index)].transpose(order).astype("float32")

    def write(
        self, tensor: np.ndarray, value: np.ndarray, at: Mapping[str, np.ndarray]
    ) -> None:
        """Put the weight's value into `tensor`, at the places that `read` has it from.

        `at` has all axes of the tensor.
        """
        order = [self.own_axes.index(axis) for axis in self.axes]
        tensor[np.ix_(*(at[axis] for axis in self.axes))] = value.transpose(order)
