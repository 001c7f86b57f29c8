"""The random matrices of VeRA in PEFT's files, which are drawn from a seed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from keras_transfer import _keras
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.random_projection import bound
from keras_transfer.adapters.random_projection import DRAWS
from keras_transfer.adapters.random_projection import matrices
from keras_transfer.adapters.vera import VeRA
from keras_transfer.saving.peft.factors import sizes_of
from keras_transfer.saving.peft.layout import Layout

A, B = VeRA.peft.shared
D = "vera_lambda_d"


def draw_of(config: Mapping[str, object], layout: Layout) -> str:
    """Return which draw from the seed of a file gives its matrices.

    Raises:
        ValueError: If no draw does.
    """
    seed, rank, size = config.get("projection_prng_key", 0), config["r"], _size(layout)
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ValueError(
            f"projection_prng_key={seed!r} must be a whole number in [0, 2**32)."
        )
    if not layout.shared:
        return "peft"  # as PEFT does for a file without the matrices
    missing = [name for name in (A, B) if name not in layout.shared]
    if missing:
        raise ValueError(f"The file lacks {missing}.")
    for draw in reversed(DRAWS):
        drawn = _as_peft(matrices(seed, rank, size, draw), rank, size, draw)
        for name, wanted in drawn.items():
            if layout.shared[name].shape != wanted.shape:
                raise ValueError(
                    f"{name} has the shape {layout.shared[name].shape} in the file, "
                    f"but its rank and the model require {wanted.shape}."
                )
        if all(_close(layout.shared[name], x) for name, x in drawn.items()):
            return draw
    raise ValueError(
        f"The matrices {A} and {B} in the file are not drawn from its "
        f"projection_prng_key={seed}. A VeRA here keeps this number instead of the "
        "matrices, so other matrices cannot be loaded. In PEFT, make the adapter "
        "without changing its matrices."
    )


def rescaled(
    values: dict[str, dict[str, np.ndarray]],
    recipe: Adapter,
    layout: Layout,
    paths: Mapping[int, str],
) -> dict[str, dict[str, np.ndarray]]:
    """Return `values` with d divided by the factor with which `written` wrote it."""
    if not isinstance(recipe, VeRA) or recipe.draw == "peft":
        return values
    largest = _size(layout)[0]
    for pair in layout.pairs.values():
        factors = pair.factors[0]
        own = values[paths[id(factors.layer)]]
        own[D] = own[D] / np.float32(math.sqrt(largest / len(factors.inputs)))
    return values


def written(
    recipe: VeRA, parts: Mapping[str, Part]
) -> tuple[dict[str, np.ndarray], dict[str, np.float32]]:
    """Return the matrices of an adapter for PEFT, and a factor for each module's d.

    In PEFT the matrices are scaled for the largest layer, and with our own draw for
    each layer, so the factor makes up for the difference.
    """
    projection = next(iter(parts.values())).projection
    values = tuple(_keras.value(each) for each in (projection.a, projection.b))
    largest = projection.size[0]
    factors = {
        module: np.float32(
            1 if recipe.draw == "peft" else math.sqrt(largest / part.size[0])
        )
        for module, part in parts.items()
    }
    return _as_peft(values, recipe.rank, projection.size, recipe.draw), factors


def _as_peft(
    values: tuple[np.ndarray, np.ndarray], rank: int, size: tuple[int, int], draw: str
) -> dict[str, np.ndarray]:
    """Return vera_A (rank, inputs) and vera_B (outputs, rank)."""
    scales = (1, 1) if draw == "peft" else (bound(size[0]), bound(rank))
    return {
        name: np.ascontiguousarray(value.T * np.float32(scale))
        for name, value, scale in zip((A, B), values, scales, strict=True)
    }


def _size(layout: Layout) -> tuple[int, int]:
    """Return the numbers of inputs and outputs of the largest modules."""
    sizes = [sizes_of(pair.factors) for pair in layout.pairs.values()]
    return tuple(max(each[axis] for each in sizes) for axis in ("inputs", "outputs"))


def _close(found: np.ndarray, wanted: np.ndarray) -> bool:
    # A file in half precision has rounded matrices.
    atol = 1e-6 if found.dtype == "float32" else 1e-2
    return bool(np.allclose(found.astype("float32"), wanted, rtol=0, atol=atol))
