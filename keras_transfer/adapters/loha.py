"""LoHa: the Hadamard product of two low-rank pairs next to each frozen matrix."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.adapter_part import uniform
from keras_transfer.adapters.convolution_pairs import ConvPair
from keras_transfer.adapters.low_rank import DensePair
from keras_transfer.adapters.low_rank import EinsumPair
from keras_transfer.adapters.low_rank import LowRankPair
from keras_transfer.adapters.peft_format import PeftFormat
from keras_transfer.adapters.peft_format import PeftTensor
from keras_transfer.adapters.rank_and_alpha import RankedAdapter

# PEFT's `a` is on the side of the outputs, and its `b` on that of the inputs.
INPUTS = ("rank", "inputs"), ("inputs", "rank")
OUTPUTS = ("outputs", "rank"), ("rank", "outputs")


class HadamardProduct:
    """Mixin for a pair: its A and B are rows multiplied out of two pairs.

    Entry (i, j) of `(A1 B1) * (A2 B2)` is a sum over the ranks p and q of both, of
    `A1[i, p] A2[i, q]` times `B1[p, j] B2[q, j]`. So the Hadamard product of two pairs
    of rank r is one pair of rank r^2, and no matrix of the size of W is formed.
    """

    layer_class = None
    peft_tensors = {
        "hada_w1_a": PeftTensor("loha_b1", *OUTPUTS),
        "hada_w1_b": PeftTensor("loha_a1", *INPUTS),
        "hada_w2_a": PeftTensor("loha_b2", *OUTPUTS),
        "hada_w2_b": PeftTensor("loha_a2", *INPUTS),
    }

    def weight_specs(self, host: keras.Layer) -> dict[str, tuple[tuple, object]]:
        """Return the two pairs, as PEFT starts them: A2 zeros, the others at random."""
        into, out = self.shapes(host)
        a, b = (*into, self.rank), (self.rank, *out)
        return {
            "loha_a1": (a, uniform()),
            "loha_b1": (b, uniform()),
            "loha_a2": (a, "zeros"),
            "loha_b2": (b, uniform()),
        }

    def factors(self, dtype: object) -> tuple[object, object]:
        """Return A and B of rank r^2 in the dtype of the computation."""
        pairs = (self.loha_a1, self.loha_a2, self.loha_b1, self.loha_b2)
        a1, a2, b1, b2 = (ops.cast(weight, dtype) for weight in pairs)
        return multiplied_out(ops, a1, a2, b1, b2)

    def low_rank_factors(self) -> tuple[np.ndarray, np.ndarray]:
        """Return A of rank r^2, and B times the scaling."""
        pairs = (self.loha_a1, self.loha_a2, self.loha_b1, self.loha_b2)
        a, b = multiplied_out(np, *(_keras.value(weight) for weight in pairs))
        return a, self.scaling * b

    def delta(self, host: keras.Layer) -> np.ndarray:
        """Return what is added to the host's own weight, in its shape, without gate."""
        return self.product(host, *self.low_rank_factors())

    # `delta` above is what it adds.
    fold = LowRankPair.fold
    # Not that of LoRA: a sum of Hadamard products is none.
    joined = Part.joined


@keras.saving.register_keras_serializable("keras_transfer")
class LoHaDensePair(HadamardProduct, DensePair):
    """The two pairs of a Dense: A `(in, rank)` and B `(rank, out)` each."""


@keras.saving.register_keras_serializable("keras_transfer")
class LoHaEinsumPair(HadamardProduct, EinsumPair):
    """The two pairs of an EinsumDense, its axes folded to inputs and outputs."""


@keras.saving.register_keras_serializable("keras_transfer")
class LoHaConvPair(HadamardProduct, ConvPair):
    """The two pairs of a Conv2D: A `(height, width, in, rank)`, B `(rank, out)`."""


@keras.saving.register_keras_serializable("keras_transfer")
class LoHa(RankedAdapter):
    """Learn a change of rank up to r^2 with the parameters of two pairs of rank r.

    `y = act(x W + b + alpha / rank * x ((A1 B1) * (A2 B2)))`, where `*` multiplies
    entry by entry, W and b are frozen, and A1 and A2 have `rank` columns, B1 and B2
    `rank` rows. Two pairs of rank r take as many parameters as LoRA at rank 2 r, whose
    change has rank 2 r at most; the rank of this one can reach r^2. Compare it with
    LoRA before you choose it: at LoRA's learning rate, with as many parameters, it can
    reach less in as many steps. A2 starts at zero, so the model starts as it was. The
    change is computed as one pair of rank r^2, never as a matrix of W's size, so a step
    with a large rank costs more than LoRA's. `kt.adapters.merge` adds it to W. Dense,
    EinsumDense and Conv1D to Conv3D can be targets. In PEFT it is `LoHaConfig`, whose
    files `kt.load_adapter` reads, in LyCORIS `loha`.

    Args:
        rank: Whole number, 1 or more, at most the smaller side of a matrix. Default 8.
        alpha: Number; the product is scaled by alpha / rank. Default 8, PEFT's.
        targets: As in `LoRA`.
        rank_pattern: As in `LoRA`.
        alpha_pattern: As in `LoRA`.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(16)])
        kt.adapters.LoHa(rank=4, targets="all-linear").attach(model)
        names = [variable.name for variable in model.trainable_weights]
        assert names == ["loha_a1", "loha_b1", "loha_a2", "loha_b2"]
        ```

    Raises:
        TypeError: If a pattern is not a dict.
        ValueError: If a number is not in its range.

    Reference:
        N. Hyeon-Woo, M. Ye-Bin and T.-H. Oh, 2022, "FedPara: Low-Rank Hadamard Product
        for Communication-Efficient Federated Learning", arXiv:2108.06098.
    """

    parts = {
        keras.layers.Dense: LoHaDensePair,
        keras.layers.EinsumDense: LoHaEinsumPair,
        keras.layers.Conv1D: LoHaConvPair,
        keras.layers.Conv2D: LoHaConvPair,
        keras.layers.Conv3D: LoHaConvPair,
    }
    peft = PeftFormat(
        settings={"peft_type": "LOHA"},
        arguments={"rank": "r", "alpha": "alpha"},
        starts={"init_weights": (None, True, False)},
        # How a convolution is split up; the models of PEFT's files here have none.
        ignored=frozenset({"use_effective_conv2d"}),
    )

    def __init__(
        self,
        rank: int = 8,
        alpha: float = 8,
        targets: object = None,
        rank_pattern: Mapping[str, int] | None = None,
        alpha_pattern: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(rank, alpha, targets, rank_pattern, alpha_pattern)


def multiplied_out(
    xp: object, a1: object, a2: object, b1: object, b2: object
) -> tuple[object, object]:
    """Return A and B with `A B = (A1 B1) * (A2 B2)`; `xp` is NumPy or keras.ops."""
    a = xp.expand_dims(a1, -1) * xp.expand_dims(a2, -2)
    b = xp.expand_dims(b1, 1) * xp.expand_dims(b2, 0)
    rank = a1.shape[-1] * a2.shape[-1]
    a = xp.reshape(a, (*a1.shape[:-1], rank))
    return a, xp.reshape(b, (rank, *b1.shape[1:]))
