"""NF4: pack arrays in 4 bits a weight with quantized block constants, in NumPy."""

from __future__ import annotations

import dataclasses

import numpy as np

# The 4-bit NormalFloat: the quantiles of a normal distribution, scaled to [-1, 1]
# (QLoRA, appendix E), in float32 as published with bitsandbytes.
LEVELS = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634),
        *(0.33791524171829224, 0.44070982933044434, 0.5626170039176941),
        *(0.7229568362236023, 1.0),
    ],
    "float32",
)
# Number of block constants that share one float32 scale.
GROUP = 256


@dataclasses.dataclass(frozen=True)
class PackedArray:
    """An array in NF4.

    Args:
        codes: Two weights in each byte, uint8 `(blocks, block_size / 2)`. The first
            weight is in the upper four bits.
        constants: The largest absolute value of each block, `(blocks,)`: float32, or
            uint8 indices into `BYTE_LEVELS` if the constants are quantized too.
        scales: One float32 for each group of 256 quantized constants, or None.
        offset: The mean of the constants, which is added after decoding, or None.
    """

    codes: np.ndarray
    constants: np.ndarray
    scales: np.ndarray | None = None
    offset: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by name, without those that are None."""
        own = vars(self).items()
        return {name: value for name, value in own if value is not None}


def pack(
    weight: np.ndarray, block_size: int = 64, double_quantization: bool = True
) -> PackedArray:
    """Return `weight` in NF4, with blocks along its flattened values.

    A block of values w has the constant c = max |w|. Each value is stored as the index
    of the level nearest to w / c. With `double_quantization`, the constants minus their
    mean are stored in 8 bits, with a scale for each group of 256, as in QLoRA. The
    indices of the weights belong to the exact constants.

    Args:
        weight: Array of finite numbers. The block size divides its size.
        block_size: Number of weights with one constant, even. Defaults to 64.
        double_quantization: Whether to quantize the constants. Defaults to True.
    """
    blocks = np.asarray(weight, "float32").reshape(-1, block_size)
    constants = np.abs(blocks).max(axis=1)
    indices = _nearest(blocks / _divisor(constants)[:, None], LEVELS)
    codes = indices[:, ::2] << 4 | indices[:, 1::2]
    if not double_quantization:
        return PackedArray(codes, constants)
    offset = constants.mean(dtype="float32")
    groups = in_groups(constants - offset)
    scales = np.abs(groups).max(axis=1)
    rounded = _nearest(groups / _divisor(scales)[:, None], BYTE_LEVELS)
    return PackedArray(codes, rounded.reshape(-1)[: len(constants)], scales, offset)


def unpack(packed: PackedArray) -> np.ndarray:
    """Return the float32 values of a packed array, in one row for each block."""
    indices = np.stack([packed.codes >> 4, packed.codes & 15], axis=-1)
    values = LEVELS[indices.reshape(len(indices), -1)]
    return values * block_constants(packed)[:, None]


def block_constants(packed: PackedArray) -> np.ndarray:
    """Return the float32 constant of each block."""
    if packed.scales is None:
        return packed.constants
    scales = np.repeat(packed.scales, GROUP)[: len(packed.constants)]
    return BYTE_LEVELS[packed.constants] * scales + packed.offset


def in_groups(constants: np.ndarray) -> np.ndarray:
    """Return block constants in rows of 256, filled up with zeros."""
    return np.pad(constants, (0, -len(constants) % GROUP)).reshape(-1, GROUP)


def packed_shapes(
    size: int, block_size: int, double_quantization: bool
) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return the shape and dtype of each array of `pack` for `size` weights."""
    blocks = size // block_size
    codes = {"codes": ((blocks, block_size // 2), "uint8")}
    if not double_quantization:
        return codes | {"constants": ((blocks,), "float32")}
    return codes | {
        "constants": ((blocks,), "uint8"),
        "scales": ((-(-blocks // GROUP),), "float32"),
        "offset": ((), "float32"),
    }


def _byte_levels() -> np.ndarray:
    """Return the 256 levels of the dynamic 8-bit number of bitsandbytes.

    A decade [10^-k, 10^(1-k)] with k from 0 to 6 is divided into 2^(6-k) equal parts.
    The levels are the centers of the parts with both signs, and 0 and 1.
    """
    levels = [0.0, 1.0]
    for decade in range(7):
        edges = np.linspace(0.1, 1, 2**decade + 1, dtype="float32")
        centers = (edges[:-1] + edges[1:]) / np.float32(2)
        scaled = centers * np.float32(10.0 ** (decade - 6))
        levels += [*scaled, *-scaled]
    return np.array(sorted(levels), "float32")


BYTE_LEVELS = _byte_levels()


def _nearest(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    middles = (levels[:-1] + levels[1:]) / 2
    return np.searchsorted(middles, values).astype("uint8")


def _divisor(constants: np.ndarray) -> np.ndarray:
    """Return the constants, and 1 instead of 0: a block of zeros stays zero."""
    return np.where(constants == 0, np.float32(1), constants)
