"""Low-rank pairs of recurrent cells, added to the kernels that Keras reads."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import gate_value
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.adapter_part import parts_of
from keras_transfer.adapters.adapter_part import uniform
from keras_transfer.adapters.in_place.forward import Hooked
from keras_transfer.adapters.low_rank import LowRankPair

# Name of a cell's kernel -> prefix of the names of its two factors.
KERNELS = {"kernel": "lora", "recurrent_kernel": "recurrent_lora"}


class Summed(Hooked):
    """Mixin before a cell class: the cell's kernels include the pairs of its parts.

    Keras's fused computation (cuDNN's if it is available) does not call the cell. It
    reads the cell's kernels, so an addition to the cell's outputs would have no effect.
    """

    def call(self, *args: object, **kwargs: object) -> object:
        """Return the cell's own result, which already uses the sums."""
        return super(Hooked, self).call(*args, **kwargs)

    @property
    def kernel(self) -> object:
        """The kernel of the inputs plus the products of the parts."""
        return _sum(self, "kernel")

    @kernel.setter
    def kernel(self, value: object) -> None:
        self.__dict__["kernel"] = value

    @property
    def recurrent_kernel(self) -> object:
        """The kernel of the state plus the products of the parts."""
        return _sum(self, "recurrent_kernel")

    @recurrent_kernel.setter
    def recurrent_kernel(self, value: object) -> None:
        self.__dict__["recurrent_kernel"] = value


@keras.saving.register_keras_serializable("keras_transfer")
class RecurrentPair(LowRankPair):
    """The pairs of a cell: one for its kernel, one for its recurrent kernel.

    The kernels are `W' = W + scaling * A B` and `U' = U + scaling * C D`, with A
    `(in, rank)` and C `(units, rank)`. B and D are `(rank, gates * units)`, where gates
    is the number of gates of the cell. Both sums are formed once in a pass, and there
    is no dropout on inputs.
    """

    layer_class = Summed
    in_reads = True
    low_rank_factors = Part.low_rank_factors
    peft_tensors = {}

    @classmethod
    def shapes(cls, host: keras.Layer) -> tuple[tuple, tuple]:
        """Return the shapes of the smaller pair without the axis of the rank."""
        sizes = _sizes(host).values()
        return (min(into for into, _ in sizes),), (min(out for _, out in sizes),)

    def weight_specs(self, host: keras.Layer) -> dict[str, tuple[tuple, object]]:
        """Return both pairs, each initialized as in LoRA."""
        specs = {}
        for name, (into, out) in _sizes(host).items():
            specs[f"{KERNELS[name]}_a"] = (into, self.rank), uniform()
            specs[f"{KERNELS[name]}_b"] = (self.rank, out), "zeros"
        return specs

    def create_weights(self, host: keras.Layer) -> None:
        """Create only the weights, because the inputs have no dropout."""
        Part.create_weights(self, host)

    def added(self, name: str, dtype: object) -> object:
        """Return the product that is added to the kernel `name`."""
        a, b = (ops.cast(getattr(self, each), dtype) for each in _factors(name))
        return self.scaled(ops.matmul(a, b))

    def fold(self, host: keras.Layer, weights: dict[str, np.ndarray]) -> None:
        """Add the products to both kernels."""
        for name in KERNELS:
            a, b = (_keras.value(getattr(self, each)) for each in _factors(name))
            weights[name] = weights[name] + gate_value(self) * self.scaling * (a @ b)

    def joined(
        self, host: keras.Layer, others: list[tuple[Part, float]], name: str
    ) -> Part:
        """Return pairs whose rank is the sum of the ranks, see `LowRankPair.joined`."""
        new = type(self).from_config(self.joined_config(others) | {"name": name})
        new.create(host)
        for a, b in map(_factors, KERNELS):
            left = [_keras.value(getattr(part, a)) for part, _ in others]
            right = [
                _keras.value(getattr(part, b)) * (weight * part.scaling)
                for part, weight in others
            ]
            getattr(new, a).assign(np.concatenate(left, axis=-1))
            getattr(new, b).assign(np.concatenate(right, axis=0))
        return new


def _factors(name: str) -> tuple[str, str]:
    return f"{KERNELS[name]}_a", f"{KERNELS[name]}_b"


def _sizes(host: keras.Layer) -> dict[str, tuple[int, int]]:
    return {
        v.name: tuple(v.shape) for v in _keras.own_weights(host) if v.name in KERNELS
    }


def _sum(layer: keras.Layer, name: str) -> object:
    kernel = layer.__dict__[name]
    for part in parts_of(layer):
        kernel = ops.convert_to_tensor(kernel)
        kernel = kernel + part.added(name, kernel.dtype)
    return kernel
