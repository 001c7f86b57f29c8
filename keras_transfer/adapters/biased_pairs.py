"""Low-rank pairs with a bias, as PEFT's `lora_bias`."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.adapters import matrix
from keras_transfer.adapters.adapter_part import check_overrides
from keras_transfer.adapters.adapter_part import gate_value
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.low_rank import DensePair
from keras_transfer.adapters.low_rank import EinsumPair
from keras_transfer.adapters.low_rank import LowRankPair
from keras_transfer.adapters.peft_format import PeftTensor


class Biased:
    """Mixin for a pair: add `scaling * (dropout(x) A B + bias)` to the outputs."""

    layer_class = None
    peft_tensors = LowRankPair.peft_tensors | {
        "lora_B.bias": PeftTensor(
            "lora_bias", ("outputs",), ("outputs",), rest=0.0, scaled=True
        )
    }

    def weight_specs(self, host: keras.Layer) -> dict[str, tuple[tuple, object]]:
        """Return A, B, and the bias, zeros."""
        size = matrix.sizes(host)[1]
        return super().weight_specs(host) | {"lora_bias": ((size,), "zeros")}

    def on_outputs(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Add the pair's product with the inputs, and its bias."""
        outputs = super().on_outputs(host, inputs, outputs, **kwargs)
        bias = self.scaled(ops.cast(self.lora_bias, self.compute_dtype))
        return outputs + ops.cast(matrix.beside_outputs(host, bias), outputs.dtype)

    def fold(self, host: keras.Layer, weights: dict[str, np.ndarray]) -> None:
        """Add the product to the kernel, and the bias to the bias.

        Raises:
            ValueError: If the host has no bias for each output.
        """
        bias = gate_value(self) * self.scaling * _keras.value(self.lora_bias)
        own = weights.get("bias")
        if own is None or own.size != bias.size:
            raise ValueError(
                f"The pair of {host.name!r} has a bias for each output, but the layer "
                "has no such bias, so the adapter cannot be merged. Keep the adapter."
            )
        shaped = matrix.beside_outputs(host, bias)
        LowRankPair.fold(self, host, weights)
        weights["bias"] = own + shaped.reshape(own.shape).astype(own.dtype)

    def joined(
        self, host: keras.Layer, others: list[tuple[Part, float]], name: str
    ) -> Part:
        """Return one pair whose rank is the sum of the ranks, with the summed bias."""
        check_overrides(self, "joined")
        new = LowRankPair.joined(self, host, others, name)
        biases = [_keras.value(p.lora_bias) * (w * p.scaling) for p, w in others]
        new.lora_bias.assign(sum(biases))
        return new

    # The method of `Part` raises: the bias is not a product with the inputs.
    low_rank_factors = Part.low_rank_factors


@keras.saving.register_keras_serializable("keras_transfer")
class BiasedDensePair(Biased, DensePair):
    """The pair of a Dense, with a bias."""


@keras.saving.register_keras_serializable("keras_transfer")
class BiasedEinsumPair(Biased, EinsumPair):
    """The pair of an EinsumDense, with a bias."""
