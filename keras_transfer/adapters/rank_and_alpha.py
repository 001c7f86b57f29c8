"""RankedAdapter: the base of the recipes that have a rank and an alpha."""

from __future__ import annotations

import numbers
from collections.abc import Mapping

import keras

from keras_transfer._arguments import number
from keras_transfer._arguments import whole_number
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.low_rank import LowRankPair
from keras_transfer.adapters.matrix import Unfit
from keras_transfer.adapters.targets import by_pattern
from keras_transfer.adapters.targets import check_patterns
from keras_transfer.adapters.targets import Target

# The computation multiplies and divides by alpha in float32.
MOST_ALPHA = 1e30


class RankedAdapter(Adapter):
    """Base of the recipes whose parts have a rank, and a scaling from alpha and rank.

    All numbers are converted to Python numbers, so files can store them.

    Args:
        rank: Rank of the parts.
        alpha: Number from which `scaling` computes the factor of the product.
        targets: As in `Adapter`. Defaults to None.
        rank_pattern: Dict from regular expression to rank. An expression has to match
            the end of a layer's path. Defaults to None.
        alpha_pattern: The same for alpha. Defaults to None.
    """

    # Rate of dropout on the inputs of A; 0 in a technique without dropout.
    dropout: float = 0.0
    # Whether to refuse ranks above the smaller side of the weight.
    _checks_rank = True

    def __init__(
        self,
        rank: int,
        alpha: float,
        targets: object = None,
        rank_pattern: Mapping[str, int] | None = None,
        alpha_pattern: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(targets)
        for pattern in (rank_pattern, alpha_pattern):
            if not isinstance(pattern, Mapping | None):
                raise TypeError(
                    f"{pattern!r} is not a dict from expressions to numbers. Write for "
                    "example {'key': 4}."
                )
        self.rank = check_rank(rank)
        self.alpha = check_alpha(alpha)
        self.rank_pattern = {
            path: check_rank(value) for path, value in (rank_pattern or {}).items()
        }
        self.alpha_pattern = {
            path: check_alpha(value) for path, value in (alpha_pattern or {}).items()
        }

    def find(self, model: keras.Layer) -> list[Target]:
        """Return the targets. Each pattern must match one of them."""
        targets = super().find(model)
        check_patterns((*self.rank_pattern, *self.alpha_pattern), targets)
        return targets

    def scaling(self, rank: int, alpha: float) -> float:
        """Return the factor that scales the product."""
        return alpha / rank

    def part(self, target: Target) -> Part:
        """Return the part for one layer."""
        rank = by_pattern(self.rank_pattern, target.path, self.rank)
        alpha = by_pattern(self.alpha_pattern, target.path, self.alpha)
        kind = self.part_class(target.layer)
        check_native(target.layer)
        if self._checks_rank:
            check_host(target.layer, target.path, kind, rank)
        return kind(rank, self.scaling(rank, alpha), dropout=self.dropout)

    def of_file(self) -> RankedAdapter:
        """Return this recipe without the limit on the rank, which sums may exceed."""
        self._checks_rank = False
        return self

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        names = ("rank", "alpha", "rank_pattern", "alpha_pattern")
        return super().get_config() | {name: getattr(self, name) for name in names}


def check_rank(rank: object, name: str = "rank") -> int:
    """Return `rank` as an int if it is a whole number above 0.

    Raises:
        ValueError: If it is not. The message calls the value `name`.
    """
    return whole_number(name, rank, why="a pair of rank 0 has no weights to train")


def check_alpha(alpha: object, name: str = "alpha") -> float:
    """Return `alpha` as a Python number if it is finite and not 0.

    Raises:
        ValueError: If it is not. The message calls the value `name`.
    """
    value = number(name, alpha)
    if not MOST_ALPHA >= abs(value) >= 1 / MOST_ALPHA:
        raise ValueError(
            f"{name}={value!r} scales the pair's product in float32. It must not be 0, "
            f"and its size must be from {1 / MOST_ALPHA} to {MOST_ALPHA}."
        )
    return int(alpha) if isinstance(alpha, numbers.Integral) else value


def check_host(
    host: keras.Layer, path: str, kind: type[LowRankPair], rank: int
) -> None:
    """Check that a pair of `rank` can be added to the weight of `host`.

    Raises:
        ValueError: If it cannot.
    """
    check_native(host)
    largest = kind.largest_rank(host)
    if rank > largest:
        raise Unfit(
            f"rank={rank} is too large for the layer {path!r}: at rank {largest} a "
            "pair can represent any change of its weight. Choose a smaller rank, for "
            "this layer alone with rank_pattern, or leave it out of the targets."
        )


def check_native(host: keras.Layer) -> None:
    """Check that Keras's own LoRA is not on `host`.

    Raises:
        ValueError: If it is.
    """
    if getattr(host, "lora_enabled", False):
        raise ValueError(
            f"The layer {host.name!r} has Keras's own LoRA (enable_lora), which cannot "
            "be combined with adapters. Load the model again and do not call "
            "enable_lora."
        )
