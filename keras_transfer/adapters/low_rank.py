"""Low-rank pairs: the parts of LoRA for each kind of layer, with factors as in PEFT."""

from __future__ import annotations

import string

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.adapters import matrix
from keras_transfer.adapters.adapter_part import check_overrides
from keras_transfer.adapters.adapter_part import drawn
from keras_transfer.adapters.adapter_part import gate_value
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.adapter_part import uniform
from keras_transfer.adapters.matrix import axis_sizes
from keras_transfer.adapters.matrix import kernel_axes
from keras_transfer.adapters.peft_format import PeftTensor


@keras.saving.register_keras_serializable("keras_transfer")
class LowRankPair(Part):
    """Base of the pairs: add `scaling * (dropout(x) A) B` to the host's outputs.

    Args:
        rank: Number of rows of B, 1 or more.
        scaling: Factor of the product, usually alpha / rank.
        dropout: Rate in [0, 1) of dropout on the inputs of A. Defaults to 0.
        name: Name of the adapter. Defaults to `"default"`.
        dtype: Dtype policy of the computation. Defaults to None.
    """

    peft_tensors = {
        "lora_A.weight": PeftTensor("lora_a", ("rank", "inputs"), ("inputs", "rank")),
        "lora_B.weight": PeftTensor(
            "lora_b", ("outputs", "rank"), ("rank", "outputs"), scaled=True
        ),
    }

    def __init__(
        self,
        rank: int,
        scaling: float,
        dropout: float = 0.0,
        name: str = "default",
        dtype: object = None,
    ) -> None:
        super().__init__(name, dtype)
        self.rank = rank
        self.scaling = scaling
        self.dropout = dropout

    @classmethod
    def shapes(cls, host: keras.Layer) -> tuple[tuple, tuple]:
        """Return the shapes of A and B for `host` without the axis of the rank.

        Raises:
            ValueError: If no low-rank pair fits the host's computation.
        """
        into, out = matrix.sizes(host)
        return (into,), (out,)

    @classmethod
    def largest_rank(cls, host: keras.Layer) -> int:
        """Return the rank at which the pair can represent any change of the weight."""
        return min(int(np.prod(shape)) for shape in cls.shapes(host))

    def weight_specs(self, host: keras.Layer) -> dict[str, tuple[tuple, object]]:
        """Return A, uniform in +-1/sqrt(fan in), and B, zeros, as in PEFT."""
        into, out = self.shapes(host)
        return {
            "lora_a": ((*into, self.rank), uniform()),
            "lora_b": ((self.rank, *out), "zeros"),
        }

    def create_weights(self, host: keras.Layer) -> None:
        """Create the weights, and the dropout layer for the inputs of A."""
        super().create_weights(host)
        if self.dropout:
            self.drop = keras.layers.Dropout(self.dropout, dtype=self.dtype_policy)

    def dropped(self, inputs: object) -> object:
        """Return the inputs of A in the host's dtype, with dropout in training."""
        inputs = ops.cast(inputs, self.compute_dtype)
        return self.drop(inputs) if self.dropout else inputs

    def scaled(self, hidden: object) -> object:
        """Return `hidden`, the product with A, multiplied by scaling and gate."""
        factor = ops.cast(self.gate, hidden.dtype) * self.scaling
        return hidden * ops.cast(factor, hidden.dtype)

    def factors(self, dtype: object) -> tuple[object, object]:
        """Return A and B in the dtype of the computation."""
        return ops.cast(self.lora_a, dtype), ops.cast(self.lora_b, dtype)

    def delta(self, host: keras.Layer) -> np.ndarray:
        """Return scaling * A B in the shape of the host's weight, without the gate."""
        a, b = (_keras.value(each) for each in (self.lora_a, self.lora_b))
        return self.scaling * self.product(host, a, b)

    def product(self, host: keras.Layer, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return A B in the shape of the host's weight."""
        return a @ b

    def low_rank_factors(self) -> tuple[np.ndarray, np.ndarray]:
        """Return A, and B multiplied by the scaling."""
        return _keras.value(self.lora_a), self.scaling * _keras.value(self.lora_b)

    def fold(self, host: keras.Layer, weights: dict[str, np.ndarray]) -> None:
        """Add the product to the kernel."""
        weights["kernel"] = weights["kernel"] + gate_value(self) * self.delta(host)

    def joined(
        self, host: keras.Layer, others: list[tuple[Part, float]], name: str
    ) -> Part:
        """Return one pair whose rank is the sum of the ranks.

        The A factors are concatenated by columns and the B factors by rows. The sum is
        exact, as with PEFT's `combination_type="cat"`.
        """
        check_overrides(self, "joined")
        new = type(self).from_config(self.joined_config(others) | {"name": name})
        new.create(host)
        new.lora_a.assign(
            np.concatenate([_keras.value(part.lora_a) for part, _ in others], axis=-1)
        )
        scaled = [_keras.value(p.lora_b) * (w * p.scaling) for p, w in others]
        new.lora_b.assign(np.concatenate(scaled, axis=0))
        return new

    def joined_config(self, others: list[tuple[Part, float]]) -> dict:
        """Return the config of the sum of `others`, whose first part is this part.

        Raises:
            ValueError: If they differ in more than rank, scaling and dropout.
        """
        own = {"rank": sum(part.rank for part, _ in others), "scaling": 1.0}
        for part, _ in others:
            config = part.get_config()
            free = {*own, "dropout", "name"}
            differ = {k: v for k, v in self.get_config().items() if v != config[k]}
            if differ := {k: v for k, v in differ.items() if k not in free}:
                raise ValueError(
                    f"The adapters {self.name!r} and {part.name!r} cannot be summed: "
                    f"{self.name!r} has {differ} in a {type(self).__name__}, and "
                    f"{part.name!r} has other values. Sum adapters of equal settings."
                )
        return self.get_config() | own

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        own = {"rank": self.rank, "scaling": self.scaling, "dropout": self.dropout}
        return super().get_config() | own


@keras.saving.register_keras_serializable("keras_transfer")
class DensePair(LowRankPair):
    """The pair of a Dense, with A `(in, rank)` and B `(rank, out)`."""

    # `on_outputs` adds A B, so the methods of the base apply (see `check_overrides`).
    low_rank_factors = LowRankPair.low_rank_factors
    fold = LowRankPair.fold
    joined = LowRankPair.joined
    peft_tensors = LowRankPair.peft_tensors

    def on_outputs(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Add the pair's product with the inputs."""
        inputs = self.dropped(inputs)
        a, b = self.factors(inputs.dtype)
        return outputs + ops.matmul(self.scaled(ops.matmul(inputs, a)), b)


@keras.saving.register_keras_serializable("keras_transfer")
class EinsumPair(LowRankPair):
    """The pair of an EinsumDense, with its axes flattened to inputs and outputs.

    All contracted axes are one axis of A `(in, rank)`, and all new axes are one axis of
    B `(rank, out)`, as in PEFT. The flattened axes keep the order of the kernel.
    """

    # `on_outputs` adds A B, so the methods of the base apply (see `check_overrides`).
    low_rank_factors = LowRankPair.low_rank_factors
    fold = LowRankPair.fold
    joined = LowRankPair.joined
    peft_tensors = LowRankPair.peft_tensors

    def on_outputs(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Add the pair's product with the inputs."""
        inputs = self.dropped(inputs)
        a, b = self.factors(inputs.dtype)
        source, target = host.equation.split(",")[0], host.equation.split("->")[1]
        _, into, out = kernel_axes(host)
        sizes = axis_sizes(host)
        rank = next(x for x in string.ascii_letters if x not in host.equation)
        hidden = source
        for axis in into:
            hidden = hidden.replace(axis, "")
        hidden += rank
        a = ops.reshape(a, [*(sizes[axis] for axis in into), a.shape[-1]])
        b = ops.reshape(b, [b.shape[0], *(sizes[axis] for axis in out)])
        product = ops.einsum(f"{source},{into}{rank}->{hidden}", inputs, a)
        product = self.scaled(product)
        return outputs + ops.einsum(f"{hidden},{rank}{out}->{target}", product, b)

    def product(self, host: keras.Layer, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return A B in the shape of the kernel."""
        return matrix.as_kernel(host, a @ b)


@keras.saving.register_keras_serializable("keras_transfer")
class EmbeddingPair(LowRankPair):
    """The pair of an Embedding, with A `(words, rank)` and B `(rank, out)`.

    As in PEFT, A starts at zero and B at random values. An embedding with tied weights
    also computes the logits. If `tied` is True, the product is added there as well. If
    `tied` is False, the product is left out of the logits, as in PEFT, and the pair
    cannot be merged.
    """

    # `on_outputs` adds A B, so the methods of the base apply (see `check_overrides`).
    low_rank_factors = LowRankPair.low_rank_factors
    joined = LowRankPair.joined

    peft_tensors = {
        "lora_embedding_A": LowRankPair.peft_tensors["lora_A.weight"],
        "lora_embedding_B": LowRankPair.peft_tensors["lora_B.weight"],
    }

    def __init__(
        self,
        rank: int,
        scaling: float,
        dropout: float = 0.0,
        name: str = "default",
        *,
        tied: bool = True,
        dtype: object = None,
    ) -> None:
        super().__init__(rank, scaling, dropout, name, dtype)
        self.tied = tied

    @classmethod
    def shapes(cls, host: keras.Layer) -> tuple[tuple, tuple]:
        """Return the shapes of A and B without the axis of the rank."""
        return (host.input_dim,), (host.output_dim,)

    def weight_specs(self, host: keras.Layer) -> dict[str, tuple[tuple, object]]:
        """Return A, zeros, and B, normal, as in PEFT for embeddings."""
        normal = drawn("RandomNormal", stddev=1.0)
        return {
            "lora_a": ((host.input_dim, self.rank), "zeros"),
            "lora_b": ((self.rank, host.output_dim), normal),
        }

    def create_weights(self, host: keras.Layer) -> None:
        """Create only the weights, because word ids have no dropout."""
        Part.create_weights(self, host)

    def on_outputs(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Add the pair's rows for the words, or its logits in reverse."""
        if not kwargs.get("reverse"):
            if keras.backend.standardize_dtype(inputs.dtype) not in ("int32", "int64"):
                inputs = ops.cast(inputs, "int32")
            # Gather first, because the cast would compute the rows of all words.
            hidden = ops.cast(ops.take(self.lora_a, inputs, axis=0), outputs.dtype)
            b = ops.cast(self.lora_b, outputs.dtype)
            return outputs + ops.matmul(self.scaled(hidden), b)
        if not (self.tied and host.tie_weights):
            return outputs
        a, b = self.factors(outputs.dtype)
        hidden = ops.matmul(ops.cast(inputs, outputs.dtype), ops.transpose(b))
        return outputs + ops.matmul(self.scaled(hidden), ops.transpose(a))

    def fold(self, host: keras.Layer, weights: dict[str, np.ndarray]) -> None:
        """Add the product to the embeddings."""
        if not self.tied and getattr(host, "tie_weights", False):
            raise ValueError(
                f"The embedding {host.name!r} computes the logits too, but without the "
                f"adapter {self.name!r} (as in PEFT). Merging it would change the "
                "logits. Keep the adapter."
            )
        weights["embeddings"] = weights["embeddings"] + gate_value(self) * self.delta(
            host
        )

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        return super().get_config() | {"tied": self.tied}
