"""The numbers of a low-rank pair, and whether a layer can have one."""

from __future__ import annotations

import keras

from keras_transfer._arguments import number
from keras_transfer._arguments import whole_number
from keras_transfer.adapters.low_rank import LowRankPair


def check_rank(rank: object) -> int:
    """Return `rank` if it is a whole number above 0.

    Raises:
        ValueError: If it is not.
    """
    return whole_number("rank", rank, why="a pair of rank 0 learns nothing")


def check_alpha(alpha: object) -> float:
    """Return `alpha` if it is a finite number, not 0.

    Raises:
        ValueError: If it is not.
    """
    if number("alpha", alpha) == 0:
        raise ValueError("alpha=0 must not be 0: it scales what the pair adds.")
    return alpha


def check_host(
    host: keras.Layer, path: str, kind: type[LowRankPair], rank: int
) -> None:
    """Check that a pair of `rank` can be put beside the weight of `host`.

    Raises:
        ValueError: If it cannot.
    """
    check_native(host)
    largest = kind.largest_rank(host)
    if rank > largest:
        raise ValueError(
            f"rank={rank} is too large for the layer {path!r}: at {largest} a pair is "
            "as free as its weight. Choose a smaller one, for this layer by "
            "rank_pattern, or leave it out of the targets."
        )


def check_native(host: keras.Layer) -> None:
    """Check that Keras's own LoRA is not on `host`.

    Raises:
        ValueError: If it is.
    """
    if getattr(host, "lora_enabled", False):
        raise ValueError(
            f"The layer {host.name!r} has Keras's own LoRA (enable_lora). The two do "
            "not go together. Load the model anew, without it."
        )
