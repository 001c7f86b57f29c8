"""DoRA: a low-rank pair that turns the weight, and a vector that sets its length."""

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

# Stands in for the norm of a column of zeros, whose magnitude is 0 as well.
TINY = 1e-12


class Magnitudes:
    """Mixin for a pair: the sum of host and pair gets columns of learned lengths."""

    layer_class = None
    peft_tensors = LowRankPair.peft_tensors | {
        "lora_magnitude_vector": PeftTensor("magnitude", ("outputs",), ("outputs",))
    }

    def weight_specs(self, host: keras.Layer) -> dict[str, tuple[tuple, object]]:
        """Return those of the pair, and a length for each column of the weight."""
        size = matrix.sizes(host)[1]
        return super().weight_specs(host) | {"magnitude": ((size,), "zeros")}

    def create_weights(self, host: keras.Layer) -> None:
        """Make the pair, and the lengths that the columns have now."""
        super().create_weights(host)
        self.__dict__["host"] = weakref.ref(host)
        self.magnitude.assign(self.norm(host, of_sum=False))

    def norm(self, host: keras.Layer, *, of_sum: bool = True) -> object:
        """Return the length of each column of W, or W + scaling * A B, in float32."""
        total = matrix.as_matrix(host, ops.cast(host.kernel, "float32"))
        if of_sum:
            a, b = self.factors("float32")
            a = ops.reshape(a, (-1, self.rank))
            total = total + self.scaling * ops.matmul(a, b)
        return ops.sqrt(ops.sum(ops.square(total), axis=0))

    def dropped(self, inputs: object) -> object:
        """Return the inputs as they are: `on_outputs` has done it, for both terms."""
        return inputs

    def on_outputs(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Add what turns x W into m * x (W + scaling * A B) / norm."""
        with _keras.no_autocast():  # lengths change by less than bfloat16 can tell
            # Section 4.3 of the paper: no gradient goes through the norm.
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
        """Give the kernel the direction of the sum and the learned lengths."""
        before = matrix.as_matrix(host, weights["kernel"])
        a, b = (_keras.value(each) for each in (self.lora_a, self.lora_b))
        after = before + self.scaling * (a.reshape(-1, self.rank) @ b)
        norm = np.maximum(np.linalg.norm(after, axis=0), TINY)
        after = after * (_keras.value(self.magnitude) / norm)
        changed = before + gate_value(self) * (after - before)
        weights["kernel"] = matrix.as_kernel(host, changed)

    # Not those of LoRA: lengths and directions do not add up.
    joined = Part.joined
    low_rank_factors = Part.low_rank_factors

    def load_own_variables(self, store: dict) -> None:
        """Load what is there. From weights of the base model take the lengths anew."""
        super().load_own_variables(store)
        if not store.keys():
            # The host's own weights are loaded before those of what is below it.
            host = self.__dict__["host"]()
            self.magnitude.assign(self.norm(host, of_sum=False))


@keras.saving.register_keras_serializable("keras_transfer")
class DoRADensePair(Magnitudes, DensePair):
    """The pair and lengths of a Dense: one length for each unit."""


@keras.saving.register_keras_serializable("keras_transfer")
class DoRAEinsumPair(Magnitudes, EinsumPair):
    """The pair and lengths of an EinsumDense: one length for each output, folded."""


@keras.saving.register_keras_serializable("keras_transfer")
class DoRAConvPair(Magnitudes, ConvPair):
    """The pair and lengths of a Conv2D: one length for each filter."""


@keras.saving.register_keras_serializable("keras_transfer")
class DoRA(LoRA):
    """Learn direction and length of the columns of a weight apart.

    `W' = m * (W + s A B) / ||W + s A B||`, with the norm over the inputs of each
    output (of each filter), s = alpha / rank, and m, one number an output, learned from
    ||W|| on. A and B are those of `LoRA`, and start so that the model is what it was.
    The gradient takes the norm for a constant, as section 4.3 of the paper and Hugging
    Face PEFT do (`LoraConfig(use_dora=True)`). W' is not formed for the product with
    the inputs, but the norm reads all of W at each step, so a step costs more than
    with LoRA; `kt.adapters.merge` puts W' in the place of W. Dense, EinsumDense and
    Conv1D to Conv3D can be targets, all unquantized.

    Weights of the base model that are loaded after attaching set m to their norms;
    weights that are assigned do not, so assign first and attach then.

    Args:
        rank: As in `LoRA`.
        alpha: As in `LoRA`.
        targets: As in `LoRA`.
        dropout: As in `LoRA`. As in PEFT it acts on the inputs of A and of the change
            of W's length, not on those of W itself; above 0 that is a second product
            with W.
        rank_pattern: As in `LoRA`.
        alpha_pattern: As in `LoRA`.
        bias: As in `LoRA`.

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
        ValueError: If a number is not in its range or `bias` is unknown.

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
        if mode is not None:
            raise ValueError(
                f"The layer {target.path!r} is quantized ({mode}). DoRA takes lengths "
                "of its weight, which has to be there in full. Use LoRA."
            )
        return super().part(target)


def _product(host: keras.Layer, inputs: object) -> object:
    """Return what the host computes from `inputs` without bias and activation."""
    kernel = ops.cast(host.kernel, inputs.dtype)
    if isinstance(host, keras.layers.EinsumDense):
        return ops.einsum(host.equation, inputs, kernel)
    if isinstance(host, keras.layers.Dense):
        return ops.matmul(inputs, kernel)
    return convolve(host, inputs, kernel)
