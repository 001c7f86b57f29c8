"""VeRA: one pair of random matrices for all layers, two trained vectors per layer."""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer._arguments import dropout_rate
from keras_transfer._arguments import one_of
from keras_transfer._arguments import positive
from keras_transfer._arguments import whole_number
from keras_transfer.adapters import matrix
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.low_rank import DensePair
from keras_transfer.adapters.low_rank import EinsumPair
from keras_transfer.adapters.low_rank import LowRankPair
from keras_transfer.adapters.peft_format import PeftFormat
from keras_transfer.adapters.peft_format import PeftTensor
from keras_transfer.adapters.random_projection import DRAWS
from keras_transfer.adapters.random_projection import projection
from keras_transfer.adapters.rank_and_alpha import check_native
from keras_transfer.adapters.rank_and_alpha import check_rank
from keras_transfer.adapters.targets import Target

# The attribute of a part that contains the matrices.
SHARED = "projection"


class Vectors:
    """Mixin for a pair whose matrices are shared and fixed, with two trained vectors.

    Args:
        rank: Length of the vector between the matrices.
        dropout: Rate in [0, 1) of dropout on the inputs of A. Defaults to 0.
        initial: Start value of the vector between the matrices. Defaults to 0.1.
        draw: As in `VeRA`. Defaults to `"keras_transfer"`.
        name: Name of the adapter. Defaults to `"default"`.
        dtype: Dtype policy of the computation. Defaults to None.
    """

    layer_class = None
    peft_tensors = {
        "vera_lambda_d": PeftTensor("vera_lambda_d", ("rank",), ("rank",)),
        "vera_lambda_b": PeftTensor("vera_lambda_b", ("outputs",), ("outputs",)),
    }

    def __init__(
        self,
        rank: int,
        dropout: float = 0.0,
        initial: float = 0.1,
        name: str = "default",
        *,
        draw: str = "keras_transfer",
        dtype: object = None,
    ) -> None:
        super().__init__(rank, 1.0, dropout, name, dtype)
        self.initial = initial
        self.draw = draw

    def weight_specs(self, host: keras.Layer) -> dict[str, tuple[tuple, object]]:
        """Return the vectors: one between the matrices, and one over the outputs."""
        start = keras.initializers.Constant(self.initial)
        return {
            "vera_lambda_d": ((self.rank,), start),
            "vera_lambda_b": ((matrix.sizes(host)[1],), "zeros"),
        }

    def create_weights(self, host: keras.Layer) -> None:
        """Create the vectors. `share` adds the matrices later."""
        super().create_weights(host)
        self.size = matrix.sizes(host)
        if self.draw == "keras_transfer":
            # The numbers are in +-1, and the matrices have to be in +-sqrt(6 / fan in).
            self.scaling = 6 / math.sqrt(self.size[0] * self.rank)

    def share(self, projection: keras.layers.Layer) -> None:
        """Replace the matrices with the matrices of `projection`."""
        if hasattr(self, SHARED):
            _keras.remove_child(self, SHARED)
        _keras.add_child(self, SHARED, projection)

    def factors(self, dtype: object) -> tuple[object, object]:
        """Return the rows and columns of the matrices that fit the host."""
        into, out = self.size
        a, b = self.projection.a, self.projection.b
        a = a if a.shape[0] == into else a[:into]
        b = b if b.shape[1] == out else b[:, :out]
        return ops.cast(a, dtype), ops.cast(b, dtype)

    def scaled(self, hidden: object) -> object:
        """Return the product with A, multiplied by the vector, scaling and gate."""
        return super().scaled(hidden) * ops.cast(self.vera_lambda_d, hidden.dtype)

    def on_outputs(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Add the product with both matrices, multiplied by the outputs' vector."""
        product = super().on_outputs(host, inputs, 0.0, **kwargs)
        vector = ops.cast(self.vera_lambda_b, product.dtype)
        return outputs + product * matrix.beside_outputs(host, vector)

    def delta(self, host: keras.Layer) -> np.ndarray:
        """Return the change of the host's weight, in its shape, without the gate."""
        into, out = self.size
        a = _keras.value(self.projection.a)[:into] * _keras.value(self.vera_lambda_d)
        b = _keras.value(self.projection.b)[:, :out] * _keras.value(self.vera_lambda_b)
        return self.scaling * self.product(host, a, b)

    # `fold` adds `delta`, which is overridden above.
    fold = LowRankPair.fold
    # The methods of `Part` raise: an update is a product of the two vectors.
    joined = Part.joined
    low_rank_factors = Part.low_rank_factors

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        config = super().get_config() | {"initial": self.initial}
        config.pop("scaling")
        return config | _other_draw(self.draw)


@keras.saving.register_keras_serializable("keras_transfer")
class VeRADensePair(Vectors, DensePair):
    """The vectors of a Dense."""


@keras.saving.register_keras_serializable("keras_transfer")
class VeRAEinsumPair(Vectors, EinsumPair):
    """The vectors of an EinsumDense, with its axes flattened as for `LoRA`."""


@keras.saving.register_keras_serializable("keras_transfer")
class VeRA(Adapter):
    """Train two vectors for each layer around random matrices that all layers share.

    A layer computes `y = act(x W + b_0 + ((x A) * d) B * b)`. A (inputs, rank) and B
    (rank, outputs) are fixed random matrices that are drawn from `seed`. The vector d
    has `rank` numbers and starts at `initial`. The vector b has one number for each
    output and starts at 0, so attaching does not change the outputs. Each layer trains
    rank + outputs parameters, so a large rank costs little. A and B are uniform in
    +-sqrt(6 / fan in) (Kaiming). Files contain the seed instead of A and B. A layer
    with fewer inputs or outputs than the largest layer uses the first rows of A and the
    first columns of B. `kt.adapters.merge` adds the product to W.

    PEFT calls this `VeraConfig`. `kt.save_adapter` and `kt.load_adapter` write and read
    its files. With `draw="peft"` A and B are PEFT's for this seed, bit for bit. Then
    they are uniform in +-sqrt(6 / fan in) of the largest layer, also for the first
    rows and columns that a smaller layer uses.

    Args:
        rank: Whole number, 1 or more. Defaults to 256.
        targets: As in `LoRA`. A Dense or an EinsumDense can be a target.
        dropout: Rate in [0, 1) of dropout on the inputs of A. Defaults to 0.
        initial: Number above 0, the start value of d. Defaults to 0.1, as in the paper.
        seed: Whole number in [0, 2**32) from which A and B are drawn. Defaults to 0.
        draw: `"keras_transfer"`, or `"peft"` for the numbers that PEFT draws from this
            seed. Defaults to `"keras_transfer"`.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        kt.adapters.VeRA(rank=8, targets="all-linear").attach(model)
        assert [tuple(v.shape) for v in model.trainable_weights] == [(8,), (3,)]
        ```

    Raises:
        ValueError: If a number is out of range or `draw` is unknown.

    Reference:
        D. Kopiczko et al., 2024, "VeRA: Vector-based Random Matrix Adaptation",
        arXiv:2310.11454.
    """

    parts = {
        keras.layers.Dense: VeRADensePair,
        keras.layers.EinsumDense: VeRAEinsumPair,
    }
    peft = PeftFormat(
        settings={"peft_type": "VERA"},
        arguments={
            "rank": "r",
            "dropout": "vera_dropout",
            "initial": "d_initial",
            "seed": "projection_prng_key",
        },
        # A file without the matrices is read too, because they can be drawn.
        ignored=frozenset(
            {"bias", "fan_in_fan_out", "init_weights", "save_projection"}
        ),
        shared=("base_model.vera_A", "base_model.vera_B"),
    )

    def __init__(
        self,
        rank: int = 256,
        targets: object = None,
        dropout: float = 0.0,
        initial: float = 0.1,
        seed: int = 0,
        draw: str = "keras_transfer",
    ) -> None:
        super().__init__(targets)
        self.rank = check_rank(rank)
        self.dropout = dropout_rate("dropout", dropout)
        why = "with 0, neither vector would get a gradient"
        self.initial = positive("initial", initial, why)
        self.seed = whole_number("seed", seed, 0, most=2**32 - 1)
        self.draw = one_of("draw", draw, DRAWS)

    def part(self, target: Target) -> Part:
        """Return the vectors of one layer."""
        check_native(target.layer)
        kind = self.part_class(target.layer)
        kind.shapes(target.layer)  # raises if the kernel is not a matrix
        return kind(self.rank, self.dropout, self.initial, draw=self.draw)

    def link(self, parts: list[Part]) -> None:
        """Give all parts the same matrices, sized for the largest layer."""
        if not parts:
            return
        size = tuple(max(part.size[i] for part in parts) for i in (0, 1))
        owned = [getattr(part, SHARED, None) for part in parts]
        shared = next((x for x in owned if x is not None and x.size == size), None)
        if shared is None:
            shared = projection(self.seed, self.rank, size, self.draw)
        for part, own in zip(parts, owned, strict=True):
            if own is not shared:
                part.share(shared)

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        names = ("rank", "dropout", "initial", "seed")
        own = {name: getattr(self, name) for name in names}
        return super().get_config() | own | _other_draw(self.draw)


def _other_draw(draw: str) -> dict[str, str]:
    """Return the config of `draw`, empty for the default, as in earlier versions."""
    return {} if draw == "keras_transfer" else {"draw": draw}
