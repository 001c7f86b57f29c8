"""PiSSA and LoftQ: values from which the pairs of LoRA start, by an SVD."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.adapters import matrix
from keras_transfer.adapters.adapter_part import gate_value
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.low_rank import DensePair
from keras_transfer.adapters.low_rank import EinsumPair
from keras_transfer.quantization.normal_float import pack
from keras_transfer.quantization.normal_float import PackedArray
from keras_transfer.quantization.normal_float import unpack
from keras_transfer.quantization.packed_layers import PackedLayer

# Alternations of LoftQ, as in the experiments of its paper.
ITERATIONS = 5


class FromStart:
    """Mixin for a pair that adds only its change from the start: `A B - A0 B0`.

    PiSSA trains the principal part A0 B0 of W, and freezes the rest W - A0 B0. This is
    the same computation with a frozen W, so the base model does not change, and other
    adapters, switching and removing work as usual. A0 and B0 are saved with the pair.
    """

    peft_tensors = {}

    def weight_specs(self, host: keras.Layer) -> dict[str, tuple[tuple, object]]:
        """Return A, B and their frozen start, zeros."""
        specs = super().weight_specs(host)
        return specs | {
            "start_a": (specs["lora_a"][0], "zeros"),
            "start_b": (specs["lora_b"][0], "zeros"),
        }

    def create_weights(self, host: keras.Layer) -> None:
        """Create the weights. The start never trains."""
        for name, (shape, initializer) in self.weight_specs(host).items():
            trains = name.startswith("lora")
            variable = self.weight(name, shape, initializer, trainable=trains)
            setattr(self, name, variable)
        if self.dropout:
            self.drop = keras.layers.Dropout(self.dropout, dtype=self.dtype_policy)

    def factors(self, dtype: object) -> tuple[object, object]:
        """Return A and A0 as columns, and B and -B0 as rows."""
        a = ops.concatenate([self.lora_a, self.start_a], axis=-1)
        b = ops.concatenate([self.lora_b, -self.start_b], axis=0)
        return ops.cast(a, dtype), ops.cast(b, dtype)

    def delta(self, host: keras.Layer) -> np.ndarray:
        """Return scaling * (A B - A0 B0) in the shape of the host's weight."""
        a, b = self.low_rank_factors()
        return self.product(host, a, b)

    def low_rank_factors(self) -> tuple[np.ndarray, np.ndarray]:
        """Return both factors of twice the rank, with the scaling in the second."""
        names = ("lora_a", "start_a", "lora_b", "start_b")
        a, start_a, b, start_b = (_keras.value(getattr(self, x)) for x in names)
        joined = np.concatenate([b, -start_b], axis=0)
        return np.concatenate([a, start_a], axis=-1), self.scaling * joined

    def fold(self, host: keras.Layer, weights: dict[str, np.ndarray]) -> None:
        """Add the change to the kernel."""
        weights["kernel"] = weights["kernel"] + gate_value(self) * self.delta(host)

    # A sum would need the starts of all parts.
    joined = Part.joined


@keras.saving.register_keras_serializable("keras_transfer")
class PissaDensePair(FromStart, DensePair):
    """The pair of a Dense that starts with the principal part of its kernel."""


@keras.saving.register_keras_serializable("keras_transfer")
class PissaEinsumPair(FromStart, EinsumPair):
    """The pair of an EinsumDense that starts with the principal part of its kernel."""


def kernel_matrix(host: keras.Layer) -> np.ndarray:
    """Return the kernel of a Dense or EinsumDense as a float32 matrix.

    Raises:
        ValueError: If it contains NaN or infinity.
    """
    packed = isinstance(host, PackedLayer)
    kernel = host.unpacked() if packed else _keras.value(host.kernel)
    kernel = kernel.astype("float32")
    if not np.isfinite(kernel).all():
        raise ValueError(
            f"The kernel of {host.name!r} contains NaN or infinity, so it has no "
            "singular values. Load the pretrained weights again."
        )
    return matrix.as_matrix(host, kernel)


def principal(
    weight: np.ndarray, rank: int, scaling: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return A and B, where scaling * A B is the best approximation of `weight`.

    With the singular values S = diag(s) of U S V', these are A = U S^(1/2) and B =
    S^(1/2) V', each divided by the square root of the scaling.
    """
    u, s, v = np.linalg.svd(weight, full_matrices=False)
    root = np.sqrt(s[:rank] / abs(scaling))
    return u[:, :rank] * root, root[:, None] * v[:rank] * np.sign(scaling)


def pissa_values(part: Part, host: keras.Layer) -> dict[str, np.ndarray]:
    """Return the weights of a pair of PiSSA by name."""
    a, b = principal(kernel_matrix(host), part.rank, part.scaling)
    return {"lora_a": a, "lora_b": b, "start_a": a, "start_b": b}


def loftq_values(
    part: Part, host: keras.Layer, block_size: int
) -> tuple[dict[str, np.ndarray], PackedArray]:
    """Return the weights of a pair by name, and the packed kernel that it completes.

    In turn, Q is W - A B in NF4, and A B is the best approximation of W - Q.
    """
    weight = kernel_matrix(host)
    change = np.zeros_like(weight)
    for _ in range(ITERATIONS):
        packed = pack(matrix.as_kernel(host, weight - change), block_size)
        decoded = unpack(packed).reshape(matrix.kernel_shape(host))
        rest = weight - matrix.as_matrix(host, decoded)
        a, b = principal(rest, part.rank, part.scaling)
        change = part.scaling * (a @ b)
    return {"lora_a": a, "lora_b": b}, packed
