"""The numbers of a low-rank pair, and whether a layer can have one."""

from __future__ import annotations

import math
import numbers

import keras

from keras_transfer.adapters.low_rank import LowRankPair


def check_rank(rank: object) -> int:
    """Return `rank` if it is a whole number above 0.

    Raises:
        ValueError: If it is not.
    """
    whole = isinstance(rank, numbers.Integral) and not isinstance(rank, bool)
    if not whole or rank < 1:
        raise ValueError(
            f"rank={rank!r} must be a whole number, 1 or more: a pair of rank 0 learns "
            "nothing."
        )
    return int(rank)


def check_alpha(alpha: object) -> float:
    """Return `alpha` if it is a finite number, not 0.

    Raises:
        ValueError: If it is not.
    """
    number = isinstance(alpha, numbers.Real) and not isinstance(alpha, bool)
    if not number or not math.isfinite(alpha) or alpha == 0:
        raise ValueError(
            f"alpha={alpha!r} must be a finite number, and not 0: it scales what the "
            "pair adds."
        )
    return alpha


def check_dropout(dropout: object) -> float:
    """Return `dropout` if it is a rate.

    Raises:
        ValueError: If it is not in [0, 1).
    """
    number = isinstance(dropout, numbers.Real) and not isinstance(dropout, bool)
    if not number or not 0 <= dropout < 1:
        raise ValueError(
            f"dropout={dropout!r} is not a rate of inputs to drop: 0 or more, below 1."
        )
    return dropout


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
