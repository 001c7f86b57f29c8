"""The random matrices of VeRA, drawn from a seed as here or as in PEFT."""

from __future__ import annotations

import math

import keras
import numpy as np

DRAWS = ("keras_transfer", "peft")


def projection(
    seed: int, rank: int, size: tuple[int, int], draw: str
) -> keras.layers.Layer:
    """Return a layer with the matrices `a` and `b` that the parts of an adapter share.

    Args:
        seed: The number from which they are drawn.
        rank: Number of columns of `a` and of rows of `b`.
        size: Number of rows of `a` and of columns of `b`.
        draw: As in `matrices`.
    """
    return _Projection(seed, rank, size, draw)


class _Projection(keras.layers.Layer):
    """The two random matrices that the parts of one adapter share.

    They are drawn from the seed and are the same on each machine, so files do not
    contain them.
    """

    def __init__(self, seed: int, rank: int, size: tuple[int, int], draw: str) -> None:
        super().__init__(name="vera", dtype="float32", trainable=False)
        self.size = size
        for name, values in zip("ab", matrices(seed, rank, size, draw), strict=True):
            weight = self.add_weight(
                shape=values.shape,
                initializer="zeros",
                trainable=False,
                aggregation="only_first_replica",
                name=f"vera_{name}",
            )
            weight.assign(values)
            setattr(self, name, weight)
        self.built = True

    def save_own_variables(self, store: dict) -> None:
        """Store nothing, because the recipe contains the seed."""

    def load_own_variables(self, store: dict) -> None:
        """Load nothing."""


def matrices(
    seed: int, rank: int, size: tuple[int, int], draw: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return A (inputs, rank) and B (rank, outputs) for a number of in- and outputs.

    With `draw="keras_transfer"` the numbers are in +-1, and the first rows do not
    depend on the number of rows, so a part of a model gets the same numbers as the
    whole model. With `draw="peft"` they are PEFT's numbers, bit for bit.
    """
    if draw == "peft":
        source = np.random.RandomState(seed)
        a, b = _of_torch(source, (rank, size[0])), _of_torch(source, (size[1], rank))
        return a.T, b.T
    found = []
    for number, count in enumerate(size):
        # NumPy guarantees only for this generator that its numbers never change.
        values = np.random.RandomState([seed, number]).random_sample((count, rank))
        found.append((2 * values - 1).astype("float32"))
    return found[0], found[1].T


def bound(fan_in: int) -> float:
    """Return the bound of PEFT's uniform numbers for a matrix."""
    return math.sqrt(3) * (math.sqrt(2) / math.sqrt(fan_in))


def _of_torch(source: np.random.RandomState, shape: tuple[int, int]) -> np.ndarray:
    """Return what torch's `uniform_` of the same Mersenne Twister writes on a CPU."""
    low, high = np.float32(-bound(shape[1])), np.float32(bound(shape[1]))
    bits = source.randint(0, 2**32, shape, dtype="uint32") & (2**24 - 1)
    # torch multiplies and adds with one rounding at the end.
    return (bits * 2.0**-24 * np.float64(high - low) + low).astype("float32")
