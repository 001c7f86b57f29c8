"""Compare an exported file with its model."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.export.request import named

# Relative to the largest output. Merging adapters adds one rounding, fused operations
# change the order of a sum, and an int8 layer rounds its inputs.
TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2, "quantized": 5e-2}
# The values of the missing logits of a narrow head in `own_heads`, for three dtypes.
FILLED = np.array([np.finfo("float32").min, np.finfo("float16").min, -3.3895314e38])


def tolerance(model: keras.Model) -> float:
    """Return the largest allowed error, relative to the largest output."""
    layers = _keras.flat_layers(model)
    kinds = {getattr(layer, "compute_dtype", None) for layer in layers}
    modes = {getattr(layer, "quantization_mode", None) for layer in layers}
    if modes - {None, "nf4"}:  # NF4 decodes to the same numbers everywhere
        kinds.add("quantized")
    return max(TOLERANCES.get(kind, TOLERANCES["float32"]) for kind in kinds)


def expected(model: keras.Model, inputs: object, single: str) -> dict[str, np.ndarray]:
    """Return the outputs of the model by name, half precision as float32."""
    outputs = named(model(inputs, training=False), single)
    arrays = {k: keras.ops.convert_to_numpy(each) for k, each in outputs.items()}
    half = ("float16", "bfloat16")
    return {
        k: each.astype("float32") if each.dtype.name in half else each
        for k, each in arrays.items()
    }


def compare(
    name: str,
    found: Mapping[str, np.ndarray],
    wanted: Mapping[str, np.ndarray],
    allowed: float,
) -> None:
    """Check that an exported file gives the outputs of the model.

    Args:
        name: Name of the exported file or signature, for the error.
        found: Outputs of the file by name. Outputs that `wanted` lacks are ignored.
        wanted: Outputs of the model by name.
        allowed: The tolerance, relative to the largest output.

    Raises:
        ValueError: If an output is not finite, is missing, or differs.
    """
    for key, right in wanted.items():
        strings = right.dtype.kind in "OUS"
        if not strings and not np.all(np.isfinite(right)):
            raise ValueError(
                f"The model's output {key!r} is not finite for the samples, so nothing "
                "was exported. Check the weights and the samples."
            )
        if key not in found:
            raise ValueError(
                f"{name} has no output {key!r}. Its outputs are {sorted(found)}."
            )
        got = np.asarray(found[key])
        if strings:
            _compare_strings(name, key, got, right)
            continue
        same = got.shape == right.shape
        if same and right.dtype.kind == "f":
            # The fill values of a narrow head do not count in the scale.
            filled = np.isin(right, FILLED)
            same = bool(np.array_equal(got[filled], right[filled]))
            got, right = got[~filled], right[~filled]
        scale = max(float(np.abs(right).max(initial=0.0)), 1e-6)
        error = float(np.abs(got - right).max(initial=0.0)) if same else np.inf
        if not error <= allowed * scale:  # also true for NaN
            raise ValueError(
                f"{name} gives another {key!r} than the model, so nothing was "
                f"exported. The outputs differ by {error:.2g}, but only "
                f"{allowed * scale:.2g} is allowed for outputs up to {scale:.2g}. The "
                "call of the model probably depends on more than its inputs and "
                "weights, such as on a random number or a Python value."
            )


def _compare_strings(name: str, key: str, got: np.ndarray, right: np.ndarray) -> None:
    if not np.array_equal(got, right):
        raise ValueError(
            f"{name} gives another {key!r} than the model, so nothing was exported: "
            f"{str(got)[:80]} instead of {str(right)[:80]}. The call of the model "
            "probably depends on more than its inputs and weights."
        )
