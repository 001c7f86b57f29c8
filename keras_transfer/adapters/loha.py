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

# PEFT's `a` belongs to the outputs, and its `b` to the inputs.
INPUTS = ("rank", "inputs"), ("inputs", "rank")
OUTPUTS = ("outputs", "rank"), ("rank", "outputs")


class HadamardProduct:
    """Mixin for a pair: compute its A and B from two smaller pairs.

    Entry (i, j) of `(A1 B1) * (A2 B2)` is the sum over p and q, the ranks of the two
    pairs, of `A1[i, p] A2[i, q]` times `B1[p, j] B2[q, j]`. So the Hadamard product of
    two pairs of rank r is one pair of rank r^2, and no matrix of the size of W is
    formed.
    """

    layer_class = None
    peft_tensors = {
        "hada_w1_a": PeftTensor("loha_b1", *OUTPUTS, scaled=True),
        "hada_w1_b": PeftTensor("loha_a1", *INPUTS),
        "hada_w2_a": PeftTensor("loha_b2", *OUTPUTS),
        "hada_w2_b": PeftTensor("loha_a2", *INPUTS),
    }

    def weight_specs(self, host: keras.Layer) -> dict[str, tuple[tuple, object]]:
        """Return the two pairs, initialized as in PEFT: A2 zero, the others random."""
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
        """Return the change of the host's weight, in its shape, without the gate."""
        return self.product(host, *self.low_rank_factors())

    # `fold` adds `delta`, which is overridden above.
    fold = LowRankPair.fold
    # `Part.joined` raises: a sum of Hadamard products is not a Hadamard product.
    joined = Part.joined


@keras.saving.register_keras_serializable("keras_transfer")
class LoHaDensePair(HadamardProduct, DensePair):
    """The two pairs of a Dense, each with A `(in, rank)` and B `(rank, out)`."""


@keras.saving.register_keras_serializable("keras_transfer")
class LoHaEinsumPair(HadamardProduct, EinsumPair):
    """The two pairs of an EinsumDense, with its axes flattened as for `LoRA`."""


@keras.saving.register_keras_serializable("keras_transfer")
class LoHaConvPair(HadamardProduct, ConvPair):
    """The two pairs of a Conv2D, A `(height, width, in, rank)` and B `(rank, out)`."""


@keras.saving.register_keras_serializable("keras_transfer")
class LoHa(RankedAdapter):
    """Train an update of rank up to r^2 with the parameters of two pairs of rank r.

    A layer computes `y = act(x W + b + alpha / rank * x ((A1 B1) * (A2 B2)))`, where
    `*` multiplies entry by entry. W and b are frozen. A1 and A2 have `rank` columns, B1
    and B2 have `rank` rows. A2 starts at zero, so attaching does not change the
    outputs.

    Two pairs of rank r have as many parameters as LoRA at rank 2 r. LoRA's update then
    has rank 2 r at most, and the rank of this update can reach r^2. Compare LoHa with
    LoRA before you choose it: with the same learning rate, parameter count and number
    of steps, LoHa can give worse results. The update is computed as one pair of rank
    r^2, never as a matrix of W's size. So a step with a large rank costs more than with
    LoRA. `kt.adapters.merge` adds the update to W. Dense, EinsumDense and Conv1D to
    Conv3D can be targets. PEFT calls this `LoHaConfig`, and `kt.load_adapter` reads its
    files. LyCORIS calls it `loha`.

    Args:
        rank: Whole number, 1 or more, at most the smaller side of a matrix. Defaults
            to 8.
        alpha: Number. The product is scaled by alpha / rank. Defaults to 8, as in PEFT.
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
        ValueError: If a number is out of range.

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
        # How a convolution is factored. The PEFT files read here have no convolutions.
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
