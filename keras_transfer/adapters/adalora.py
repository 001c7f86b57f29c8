"""AdaLoRA: singular triplets next to each frozen matrix, as many as it needs."""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer._arguments import dropout_rate
from keras_transfer._arguments import number
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.adapter_part import drawn
from keras_transfer.adapters.adapter_part import gate_value
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.convolution_pairs import ConvPair
from keras_transfer.adapters.low_rank import DensePair
from keras_transfer.adapters.low_rank import EinsumPair
from keras_transfer.adapters.low_rank import LowRankPair
from keras_transfer.adapters.rank_and_alpha import check_alpha
from keras_transfer.adapters.rank_and_alpha import check_host
from keras_transfer.adapters.rank_and_alpha import check_rank
from keras_transfer.adapters.switching import check_known
from keras_transfer.adapters.switching import places
from keras_transfer.adapters.targets import Target
from keras_transfer.optimizers.rank_allocation import Allocated
from keras_transfer.optimizers.rank_allocation import NAMES

P, LAMBDA, Q = NAMES
# Below this square of a norm its gradient is 0, because that of the root is infinite.
TINY = 1e-12


class Orthogonality:
    """Regularizer of a weight whose vectors are to be orthonormal: `|V'V - I|`.

    The norm is the Frobenius norm, without a square.

    Args:
        axis: Axis of the vectors, 0 or -1. All other axes are one axis.
        strength: Factor of the norm. Defaults to 0.
    """

    def __init__(self, axis: int, strength: float = 0.0) -> None:
        self.axis = axis
        self.strength = strength

    def __call__(self, weight: object) -> object:
        """Return the penalty of `weight`."""
        count = weight.shape[self.axis]
        if self.axis == -1:
            vectors = ops.transpose(ops.reshape(weight, (-1, count)))
        else:
            vectors = ops.reshape(weight, (count, -1))
        gram = ops.matmul(vectors, ops.transpose(vectors))
        square = ops.sum(ops.square(gram - ops.eye(count, dtype=gram.dtype)))
        return self.strength * ops.sqrt(ops.maximum(square, TINY))


class Triplets:
    """Mixin for a pair: P has a column, Q a row and `lambda` a number per triplet.

    Args:
        rank: Number of triplets at the start.
        scaling: Factor of the product.
        dropout: Rate in [0, 1) of dropout on the inputs of P. Defaults to 0.
        name: Name of the adapter. Defaults to `"default"`.
        dtype: Dtype policy of the computation. Defaults to None.
    """

    layer_class = None
    peft_tensors = {}

    def weight_specs(self, host: keras.Layer) -> dict[str, tuple[tuple, object]]:
        """Return P and Q, normal with deviation 0.02 as in PEFT, and zeros between."""
        into, out = self.shapes(host)
        normal = drawn("RandomNormal", stddev=0.02)
        return {
            P: ((*into, self.rank), normal),
            LAMBDA: ((self.rank,), "zeros"),
            Q: ((self.rank, *out), normal),
        }

    def create_weights(self, host: keras.Layer) -> None:
        """Create the weights, which only an optimizer that gives ranks may update."""
        super().create_weights(host)
        self.adalora_p.regularizer = Orthogonality(-1)
        self.adalora_lambda.constraint = Allocated()
        self.adalora_q.regularizer = Orthogonality(0)

    @property
    def current_rank(self) -> int:
        """The number of triplets whose value is not 0."""
        return int(np.count_nonzero(_keras.value(self.adalora_lambda)))

    def factors(self, dtype: object) -> tuple[object, object]:
        """Return P diag(lambda) and Q in the dtype of the computation."""
        weights = (self.adalora_p, self.adalora_lambda, self.adalora_q)
        p, values, q = (ops.cast(weight, dtype) for weight in weights)
        return p * values, q

    def low_rank_factors(self) -> tuple[np.ndarray, np.ndarray]:
        """Return P diag(lambda), and Q multiplied by the scaling."""
        weights = (self.adalora_p, self.adalora_lambda, self.adalora_q)
        p, values, q = (_keras.value(weight) for weight in weights)
        return p * values, self.scaling * q

    def delta(self, host: keras.Layer) -> np.ndarray:
        """Return the change of the host's weight, in its shape, without the gate."""
        return self.product(host, *self.low_rank_factors())

    # `fold` adds `delta`, which is overridden above.
    fold = LowRankPair.fold
    # `Part.joined` raises: the vectors of a sum are not orthogonal.
    joined = Part.joined


@keras.saving.register_keras_serializable("keras_transfer")
class AdaLoRADensePair(Triplets, DensePair):
    """The triplets of a Dense, with P `(in, rank)` and Q `(rank, out)`."""


@keras.saving.register_keras_serializable("keras_transfer")
class AdaLoRAEinsumPair(Triplets, EinsumPair):
    """The triplets of an EinsumDense, with its axes flattened as for `LoRA`."""


@keras.saving.register_keras_serializable("keras_transfer")
class AdaLoRAConvPair(Triplets, ConvPair):
    """The triplets of a convolution, P `(*window, in, rank)` and Q `(rank, out)`."""


@keras.saving.register_keras_serializable("keras_transfer")
class AdaLoRA(Adapter):
    """Train low-rank updates whose ranks go to the layers that need them most.

    A layer computes `y = act(x W + b + alpha / initial_rank * (dropout(x) P) diag(l)
    Q)`. W and b are frozen. P has orthonormal columns and Q orthonormal rows, so each
    column, number in l and row are a *triplet*, like a singular value with its vectors.
    All layers start with `initial_rank` triplets. During `fit`
    `kt.callbacks.RankBudget` sets the numbers of the least important triplets to 0,
    until the layers have `rank` triplets on average, one layer more and another less.
    `kt.adapters.ranks` returns them. An update without this callback raises an error.

    l starts at 0, so attaching does not change the outputs, and P and Q start at random
    values. The loss gets the penalty `orthogonality * mean(|P'P - I|, |QQ' - I|)`, with
    Frobenius norms and the mean over the P and Q of all layers, as in the authors'
    code and in Hugging Face PEFT (the paper has a sum of squares). Evaluation shows it
    too, as it does all penalties of weights. `kt.adapters.merge` adds the product to W.
    Pruned triplets still take memory, but no effect is left of them. Dense, EinsumDense
    and Conv1D to Conv3D can be targets. PEFT's files of AdaLoRA are not read.

    Args:
        rank: Whole number, 1 or more, the average number of triplets of a layer at the
            end. Defaults to 8.
        initial_rank: Whole number from `rank` to the smaller side of a matrix. Defaults
            to None, for 1.5 times `rank`, as in the paper.
        alpha: Number. The product is scaled by alpha / initial_rank. Defaults to 16.
        targets: As in `LoRA`.
        dropout: Rate in [0, 1) of dropout on the inputs of P. Defaults to 0.
        orthogonality: Factor of the penalty, 0 or more. Defaults to 0.5, as in PEFT.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
        kt.adapters.AdaLoRA(1, initial_rank=3, targets="all-linear").attach(model)
        model.compile("adam", "mse")
        x, y = np.random.rand(16, 4), np.random.rand(16, 4)
        budget = kt.callbacks.RankBudget(interval=1)
        model.fit(x, y, epochs=8, batch_size=4, callbacks=[budget], verbose=0)
        assert list(kt.adapters.ranks(model).values()) == [1]
        ```

    Raises:
        ValueError: If a number is out of range.

    Reference:
        Q. Zhang et al., 2023, "AdaLoRA: Adaptive Budget Allocation for
        Parameter-Efficient Fine-Tuning", arXiv:2303.10512.
    """

    parts = {
        keras.layers.Dense: AdaLoRADensePair,
        keras.layers.EinsumDense: AdaLoRAEinsumPair,
        keras.layers.Conv1D: AdaLoRAConvPair,
        keras.layers.Conv2D: AdaLoRAConvPair,
        keras.layers.Conv3D: AdaLoRAConvPair,
    }

    def __init__(
        self,
        rank: int = 8,
        initial_rank: int | None = None,
        alpha: float = 16,
        targets: object = None,
        dropout: float = 0.0,
        orthogonality: float = 0.5,
    ) -> None:
        super().__init__(targets)
        self.rank = check_rank(rank)
        if initial_rank is None:
            initial_rank = math.ceil(1.5 * self.rank)
        self.initial_rank = check_rank(initial_rank, "initial_rank")
        if self.initial_rank < self.rank:
            raise ValueError(
                f"initial_rank={initial_rank} is below rank={rank}, but triplets are "
                "only removed. Give an initial_rank of at least rank."
            )
        self.alpha = check_alpha(alpha)
        self.dropout = dropout_rate("dropout", dropout)
        self.orthogonality = number("orthogonality", orthogonality, 0)

    def part(self, target: Target) -> Part:
        """Return the triplets of one layer."""
        kind = self.part_class(target.layer)
        check_host(target.layer, target.path, kind, self.initial_rank)
        scaling = self.alpha / self.initial_rank
        return kind(self.initial_rank, scaling, self.dropout)

    def link(self, parts: list[Part]) -> None:
        """Give each P and Q its share of the penalty, which is a mean over them."""
        for part in parts:
            for weight in (part.adalora_p, part.adalora_q):
                weight.regularizer.strength = self.orthogonality / (2 * len(parts))

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        names = ("rank", "initial_rank", "alpha", "dropout", "orthogonality")
        return super().get_config() | {name: getattr(self, name) for name in names}


def ranks(model: keras.Layer, name: str | None = None) -> dict[str, int]:
    """Return how many triplets of an AdaLoRA are not pruned, for each layer.

    Before training all numbers of AdaLoRA are 0, so all ranks are 0 then.

    Args:
        model: A model with AdaLoRA.
        name: Name of the adapter. Defaults to None, for the AdaLoRA in use.

    Returns:
        Dict from the path of a layer to its number of triplets that are not 0.

    Raises:
        ValueError: If the model has no such adapter, or it is not an AdaLoRA.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="a")])
        kt.adapters.AdaLoRA(rank=2, targets="all-linear").attach(model)
        assert kt.adapters.ranks(model) == {"a": 0}
        ```

    Reference:
        Q. Zhang et al., 2023, "AdaLoRA: Adaptive Budget Allocation for
        Parameter-Efficient Fine-Tuning", arXiv:2303.10512, figure 3.
    """
    if name is not None:
        check_known(model, name)
    found = {
        path: part.current_rank
        for path, _, part in places(model, name)
        if isinstance(part, Triplets) and (name is not None or gate_value(part))
    }
    if not found:
        what = "no AdaLoRA in use" if name is None else f"no AdaLoRA {name!r}"
        raise ValueError(
            f"The model {model.name!r} has {what}. Attach kt.adapters.AdaLoRA, or give "
            "the name of one that is attached. The rank of another technique is in its "
            "recipe, kt.adapters.attached(model)."
        )
    return found
