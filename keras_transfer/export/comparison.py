"""Compare what was written with the model that it was written from."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.export.request import named

# Of the largest output. Folded adapters are rounded once more, fused operations sum
# in another order; an int8 layer rounds what comes in.
TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2, "quantized": 5e-2}
# What `own_heads` fills up logits with, in the three dtypes.
FILLED = np.array([np.finfo("float32").min, np.finfo("float16").min, -3.3895314e38])


def tolerance(model: keras.Model) -> float:
    """Return how far outputs may be off, relative to the largest."""
    layers = _keras.flat_layers(model)
    kinds = {getattr(layer, "compute_dtype", None) for layer in layers}
    if any(getattr(layer, "quantization_mode", None) for layer in layers):
        kinds.add("quantized")
    return max(TOLERANCES.get(kind, TOLERANCES["float32"]) for kind in kinds)


def expected(model: keras.Model, inputs: object, single: str) -> dict[str, np.ndarray]:
    """Return the outputs of the model itself by name, as float32 where it is half."""
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
    """Check that what was written gives the outputs of the model.

    Args:
        name: What is checked.
        found: Its outputs by name; there may be more than are wanted.
        wanted: The outputs of the model.
        allowed: The tolerance.

    Raises:
        ValueError: If an output is not finite, is missing, or is off.
    """
    for key, right in wanted.items():
        strings = right.dtype.kind in "OUS"
        if not strings and not np.all(np.isfinite(right)):
            raise ValueError(
                f"The model's output {key!r} is not finite for the samples. Nothing "
                "was exported: look at the weights or at the samples."
            )
        if key not in found:
            raise ValueError(f"{name} has no output {key!r}, but {sorted(found)}.")
        got = np.asarray(found[key])
        if strings:
            _compare_strings(name, key, got, right)
            continue
        same = got.shape == right.shape
        if same and right.dtype.kind == "f":
            # What fills up the scores of a narrow head is no score.
            filled = np.isin(right, FILLED)
            same = bool(np.array_equal(got[filled], right[filled]))
            got, right = got[~filled], right[~filled]
        scale = max(float(np.abs(right).max(initial=0.0)), 1e-6)
        error = float(np.abs(got - right).max(initial=0.0)) if same else np.inf
        if not error <= allowed * scale:  # NaN is not either
            raise ValueError(
                f"{name} gives another {key!r} than the model: they differ by "
                f"{error:.2g}, with outputs up to {scale:.2g} and {allowed:.0e} of "
                "that allowed. Nothing was exported. Something in the model's call "
                "depends on more than its inputs and weights, such as a random number "
                "or a Python value."
            )


def _compare_strings(name: str, key: str, got: np.ndarray, right: np.ndarray) -> None:
    if not np.array_equal(got, right):
        raise ValueError(
            f"{name} gives another {key!r} than the model: {str(got)[:80]}, and not "
            f"{str(right)[:80]}. Nothing was exported. Something in the model's call "
            "depends on more than its inputs and weights."
        )
