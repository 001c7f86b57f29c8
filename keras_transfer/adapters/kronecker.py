"""The shapes of two matrices whose Kronecker product has a given shape."""

from __future__ import annotations

import math
from typing import NamedTuple


class Shapes(NamedTuple):
    """The shapes of the two matrices, and which of them are products of two factors."""

    w1: tuple[int, int]
    w2: tuple[int, int]
    splits_w1: bool
    splits_w2: bool

    def names(self) -> list[str]:
        """Return the names of the weights."""
        first = ["lokr_w1_a", "lokr_w1_b"] if self.splits_w1 else ["lokr_w1"]
        second = ["lokr_w2_a", "lokr_w2_b"] if self.splits_w2 else ["lokr_w2"]
        return first + second


def shapes(
    into: int, out: int, rank: int, decompose_factor: int, decompose_both: bool
) -> Shapes:
    """Return the shapes of the matrices for a number of inputs and outputs."""
    (m, n), (l, k) = (factored(each, decompose_factor) for each in (into, out))  # noqa: E741
    splits_w1 = decompose_both and 2 * rank < max(l, m)
    return Shapes((l, m), (k, n), splits_w1, 2 * rank < max(k, n))


def factored(size: int, factor: int) -> tuple[int, int]:
    """Return two numbers whose product is `size`, as LyCORIS and PEFT choose them."""
    if factor > 0 and size % factor == 0:
        return factor, size // factor
    most = math.isqrt(size) if factor == -1 else min(factor, math.isqrt(size))
    first = max(x for x in range(1, most + 1) if size % x == 0)
    return first, size // first
