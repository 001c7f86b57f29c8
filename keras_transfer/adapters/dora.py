"""DoRA: a low-rank pair for the direction of a weight, a vector for its lengths."""

from __future__ import annotations

import dataclasses
import weakref

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.adapters import matrix
from keras_transfer.adapters.adapter_part import gate_value
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.convolution_pairs import convolve
from keras_transfer.adapters.convolution_pairs import ConvPair
from keras_transfer.adapters.lora import LoRA
from keras_transfer.adapters.low_rank import DensePair
from keras_transfer.adapters.low_rank import EinsumPair
from keras_transfer.adapters.low_rank import LowRankPair
from keras_transfer.adapters.peft_format import PeftTensor
from keras_transfer.adapters.targets import Target
from keras_transfer.quantization.packed_layers import PackedLayer

# Smallest norm to divide by. A column of zeros has magnitude 0, so it stays zero.
TINY = 1e-12


class Magnitudes:
    """Mixin for a pair: the length of each column of `W + scaling * A B` trains."""

    layer_class = None
    peft_tensors = LowRankPair.peft_tensors | {
        "lora_magnitude_vector": PeftTensor("magnitude", ("outputs",), ("outputs",))
    }

    def weight_specs(self, host: keras.Layer) -> dict[str, tuple[tuple, object]]:
        """Return the weights of the pair, and a length for each column of W."""
        size = matrix.sizes(host)[1]
        return super().weight_specs(host) | {"magnitude": ((size,), "zeros")}

    def create_weights(self, host: keras.Layer) -> None:
        """Create the pair, and set the lengths to the current column norms."""
        super().create_weights(host)
        self.__dict__["host"] = weakref.ref(host)
        self.magnitude.assign(self.norm(host, of_sum=False))

    def norm(self, host: keras.Layer, *, of_sum: bool = True) -> object:
        """Return the norm of each column of W or of W + scaling * A B, in float32."""
        total = matrix.as_matrix(host, ops.cast(host.kernel, "float32"))
        if of_sum:
            a, b = self.factors("float32")
            a = ops.reshape(a, (-1, self.rank))
            total = total + self.scaling * ops.matmul(a, b)
        return ops.sqrt(ops.sum(ops.square(total), axis=0))

    def dropped(self, inputs: object) -> object:
        """Return the inputs unchanged: `on_outputs` drops them for both terms."""
        return inputs

    def on_outputs(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Replace x W in the outputs with m * x (W + scaling * A B) / norm."""
        with _keras.no_autocast():  # bfloat16 is too coarse for changes of length
            # Section 4.3 of the paper: no gradient flows through the norm.
            norm = ops.maximum(ops.stop_gradient(self.norm(host)), TINY)
            ratio = ops.convert_to_tensor(self.magnitude) / norm
            change = ops.convert_to_tensor(self.gate) * (ratio - 1)
        dtype = outputs.dtype
        ratio = matrix.beside_outputs(host, ops.cast(ratio, dtype))
        change = matrix.beside_outputs(host, ops.cast(change, dtype))
        if self.dropout:
            inputs = super().dropped(inputs)
            plain = _product(host, inputs)
        else:
            plain = outputs - matrix.bias_of(host, dtype)
        pair = super().on_outputs(host, inputs, 0.0, **kwargs)
        return outputs + change * plain + ratio * pair

    def fold(self, host: keras.Layer, weights: dict[str, np.ndarray]) -> None:
        """Give the kernel the direction of the sum and the trained lengths."""
        before = matrix.as_matrix(host, weights["kernel"])
        a, b = (_keras.value(each) for each in (self.lora_a, self.lora_b))
        after = before + self.scaling * (a.reshape(-1, self.rank) @ b)
        norm = np.maximum(np.linalg.norm(after, axis=0), TINY)
        after = after * (_keras.value(self.magnitude) / norm)
        changed = before + gate_value(self) * (after - before)
        weights["kernel"] = matrix.as_kernel(host, changed)

    # The methods of `Part` raise: lengths and directions cannot be added.
    joined = Part.joined
    low_rank_factors = Part.low_rank_factors

    def load_own_variables(self, store: dict) -> None:
        """Load the stored weights. A file of the base model resets the lengths."""
        super().load_own_variables(store)
        if not store.keys():
            # Keras loads the host's own weights before the weights of its sublayers.
            host = self.__dict__["host"]()
            self.magnitude.assign(self.norm(host, of_sum=False))


@keras.saving.register_keras_serializable("keras_transfer")
class DoRADensePair(Magnitudes, DensePair):
    """The pair and lengths of a Dense, with one length for each unit."""


@keras.saving.register_keras_serializable("keras_transfer")
class DoRAEinsumPair(Magnitudes, EinsumPair):
    """The pair and lengths of an EinsumDense, with one length for each output."""


@keras.saving.register_keras_serializable("keras_transfer")
class DoRAConvPair(Magnitudes, ConvPair):
    """The pair and lengths of a Conv2D, with one length for each filter."""


@keras.saving.register_keras_serializable("keras_transfer")
class DoRA(LoRA):
    """Train the direction and the length of each column of a weight separately.

    A weight W becomes `W' = m * (W + s A B) / ||W + s A B||`. The norm is over the
    inputs of each output (of each filter), and s = alpha / rank. The vector m has one
    number for each output, starts at ||W||, and trains. A and B are the factors of
    `LoRA`, so attaching does not change the outputs. The gradient treats the norm as a
    constant, as in section 4.3 of the paper and in Hugging Face PEFT
    (`LoraConfig(use_dora=True)`). The product with the inputs does not form W', but the
    norm reads all of W at each step. So a step costs more than with LoRA.
    `kt.adapters.merge` replaces W with W'. Dense, EinsumDense and Conv1D to Conv3D can
    be targets, also in NF4 (`kt.quantize`), but not in int8 or int4.

    If you load weights of the base model after attaching, m is set to the norms of the
    loaded weights. If you assign weights, m does not change. So assign weights before
    you attach.

    Args:
        rank: As in `LoRA`.
        alpha: As in `LoRA`.
        targets: As in `LoRA`.
        dropout: As in `LoRA`. As in PEFT, the product of W with the inputs has no
            dropout, and all terms that the adapter adds use the inputs after dropout. A
            rate above 0 costs a second product with W.
        rank_pattern: As in `LoRA`.
        alpha_pattern: As in `LoRA`.
        bias: As in `LoRA`.
        init: Only `"default"`. The lengths belong to the start of `LoRA`.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        kt.adapters.DoRA(rank=2, targets="all-linear").attach(model)
        names = [variable.name for variable in model.trainable_weights]
        assert names == ["lora_a", "lora_b", "magnitude"]
        ```

    Raises:
        TypeError: If a pattern is not a dict.
        ValueError: If a number is out of range or `bias` is unknown.

    Reference:
        S. Liu et al., 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation",
        arXiv:2402.09353.
    """

    parts = {
        keras.layers.Dense: DoRADensePair,
        keras.layers.EinsumDense: DoRAEinsumPair,
        keras.layers.Conv1D: DoRAConvPair,
        keras.layers.Conv2D: DoRAConvPair,
        keras.layers.Conv3D: DoRAConvPair,
    }
    peft = dataclasses.replace(
        LoRA.peft, settings=LoRA.peft.settings | {"use_dora": True}
    )

    def part(self, target: Target) -> Part:
        """Return the pair and the lengths of one layer."""
        mode = getattr(target.layer, "quantization_mode", None)
        if mode is not None and not isinstance(target.layer, PackedLayer):
            raise ValueError(
                f"The layer {target.path!r} is quantized ({mode}). DoRA computes norms "
                "of its weight, and Keras does not decode it. Use LoRA, or quantize "
                "with kt.quantize(model, 'nf4')."
            )
        return super().part(target)


def _product(host: keras.Layer, inputs: object) -> object:
    """Return the host's outputs for `inputs`, without bias and activation."""
    if isinstance(host, PackedLayer):
        return host.product(inputs)
    kernel = ops.cast(host.kernel, inputs.dtype)
    if isinstance(host, keras.layers.EinsumDense):
        return ops.einsum(host.equation, inputs, kernel)
    if isinstance(host, keras.layers.Dense):
        return ops.matmul(inputs, kernel)
    return convolve(host, inputs, kernel)
