"""LoKr: the Kronecker product of two small matrices next to each frozen matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer._arguments import one_of
from keras_transfer._arguments import whole_number
from keras_transfer.adapters import matrix
from keras_transfer.adapters.adapter_part import drawn
from keras_transfer.adapters.adapter_part import gate_value
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.convolution_pairs import channels
from keras_transfer.adapters.convolution_pairs import convolve
from keras_transfer.adapters.kronecker import Shapes
from keras_transfer.adapters.kronecker import shapes
from keras_transfer.adapters.peft_format import PeftFormat
from keras_transfer.adapters.peft_format import PeftTensor
from keras_transfer.adapters.rank_and_alpha import check_native
from keras_transfer.adapters.rank_and_alpha import RankedAdapter
from keras_transfer.adapters.targets import by_pattern
from keras_transfer.adapters.targets import Target

# The axes of the matrices, with rows for the outputs as in PEFT.
W1, W2 = ("outer outputs", "outer inputs"), ("inner outputs", "inner inputs")


@keras.saving.register_keras_serializable("keras_transfer")
class LoKrPart(Part):
    """The two matrices of one layer: W1 `(l, m)` and W2 `(k, n)`, or factors of them.

    The layer has `l k` outputs and `m n` inputs. The inputs of a convolution are the
    channels of one group, and each entry of W2 is a window.

    Args:
        rank: Rank of a matrix that is a product of two factors.
        scaling: Factor of the Kronecker product, usually alpha / rank.
        decompose_factor: As in `LoKr`. Defaults to -1.
        decompose_both: As in `LoKr`. Defaults to False.
        name: Name of the adapter. Defaults to `"default"`.
        dtype: Dtype policy of the computation. Defaults to None.
    """

    peft_tensors = {
        "lokr_w1": PeftTensor("lokr_w1", W1, W1),
        "lokr_w1_a": PeftTensor("lokr_w1_a", (W1[0], "rank"), (W1[0], "rank")),
        "lokr_w1_b": PeftTensor("lokr_w1_b", ("rank", W1[1]), ("rank", W1[1])),
        "lokr_w2": PeftTensor("lokr_w2", W2, W2),
        "lokr_w2_a": PeftTensor("lokr_w2_a", (W2[0], "rank"), (W2[0], "rank")),
        "lokr_w2_b": PeftTensor("lokr_w2_b", ("rank", W2[1]), ("rank", W2[1])),
    }

    def __init__(
        self,
        rank: int,
        scaling: float,
        decompose_factor: int = -1,
        decompose_both: bool = False,
        name: str = "default",
        dtype: object = None,
    ) -> None:
        super().__init__(name, dtype)
        self.rank = rank
        self.scaling = scaling
        self.decompose_factor = decompose_factor
        self.decompose_both = decompose_both

    def shapes(self, host: keras.Layer) -> Shapes:
        """Return the shapes of the matrices for `host`, windows included."""
        both = self.decompose_factor, self.decompose_both
        found = shapes(*sizes(host), self.rank, *both)
        rows, columns = found.w2
        return found._replace(w2=(rows, columns * math.prod(window(host))))

    def weight_specs(self, host: keras.Layer) -> dict[str, tuple[tuple, object]]:
        """Return the matrices as in PEFT: W1 or its first factor zero, others random.

        The random numbers are uniform in +-1/sqrt(number of columns).
        """
        form = self.shapes(host)
        (l, m), (k, n) = form.w1, form.w2  # noqa: E741
        random = drawn(
            "VarianceScaling", scale=1 / 3, mode="fan_out", distribution="uniform"
        )
        known = {
            "lokr_w1": ((l, m), "zeros"),
            "lokr_w1_a": ((l, self.rank), "zeros"),
            "lokr_w1_b": ((self.rank, m), random),
            "lokr_w2": ((k, n), random),
            "lokr_w2_a": ((k, self.rank), random),
            "lokr_w2_b": ((self.rank, n), random),
        }
        return {name: known[name] for name in form.names()}

    def on_outputs(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Add the host's computation with the Kronecker product as its kernel."""
        inputs = ops.cast(inputs, self.compute_dtype)
        weights = {k: ops.cast(v, inputs.dtype) for k, v in self.named_weights.items()}
        factor = ops.cast(self.gate * self.scaling, inputs.dtype)
        kernel = factor * self.kernel(host, ops, weights)
        if isinstance(host, keras.layers.Dense):
            return outputs + ops.matmul(inputs, kernel)
        if isinstance(host, keras.layers.EinsumDense):
            return outputs + ops.einsum(host.equation, inputs, kernel)
        return outputs + convolve(host, inputs, kernel)

    def kernel(
        self, host: keras.Layer, xp: object, weights: Mapping[str, object]
    ) -> object:
        """Return the Kronecker product in the shape of the host's kernel.

        Args:
            host: The layer.
            xp: NumPy or keras.ops.
            weights: Dict from name to the values of the weights.
        """
        form = self.shapes(host)
        w1, w2 = (
            xp.matmul(weights[f"{name}_a"], weights[f"{name}_b"])
            if splits
            else weights[name]
            for name, splits in (
                ("lokr_w1", form.splits_w1),
                ("lokr_w2", form.splits_w2),
            )
        )
        # (l, m) and (k, n) become the inputs (m, n) and the outputs (l, k).
        product = xp.einsum("lm,kn->mnlk", w1, w2)
        into, out = sizes(host)
        product = xp.reshape(product, (into, *window(host), out))
        if window(host):
            return xp.moveaxis(product, 0, -2)
        return matrix.as_kernel(host, product)

    def fold(self, host: keras.Layer, weights: dict[str, np.ndarray]) -> None:
        """Add the Kronecker product to the kernel."""
        own = {name: _keras.value(each) for name, each in self.named_weights.items()}
        factor = gate_value(self) * self.scaling
        weights["kernel"] = weights["kernel"] + factor * self.kernel(host, np, own)

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        names = ("rank", "scaling", "decompose_factor", "decompose_both")
        return super().get_config() | {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable("keras_transfer")
class LoKr(RankedAdapter):
    """Train an update that is the Kronecker product of two small matrices.

    A layer computes `y = act(x (W + alpha / rank * kron(W1, W2)^T) + b)`. W and b are
    frozen. The number of outputs is factored into `l k` and the number of inputs into
    `m n`. W1 has the shape `(l, m)`. W2 has the shape `(k, n)`, and is a product of a
    `(k, rank)` and a `(rank, n)` matrix if the rank is below half of its larger side.
    W1 starts at zero, so attaching does not change the outputs.

    A 768 x 768 matrix is factored into 24 x 32 on both sides, so at rank 8 it trains
    1,088 numbers (24 * 24 and 2 * 32 * 8), where LoRA trains 12,288. The rank of a
    Kronecker product is the product of the two ranks, so the update can have rank
    24 * 8 = 192. In each step the update is formed as a matrix of W's size, as in PEFT.
    `kt.adapters.merge` adds the update to W. Dense, EinsumDense and Conv1D to Conv3D
    can be targets. PEFT calls this `LoKrConfig`, and `kt.load_adapter` reads its files.
    LyCORIS calls it `lokr`.

    Args:
        rank: Whole number, 1 or more. At half of the larger side of W2 or more, W2 is
            one matrix, as in PEFT. Defaults to 8.
        alpha: Number. The product is scaled by alpha / rank. Defaults to 8, as in PEFT.
        targets: As in `LoRA`.
        decompose_factor: Whole number that divides the number of inputs and outputs and
            is then the size of W1 on this side. If it does not divide a number, its
            largest divisor up to `decompose_factor` and its square root is used. -1 is
            the largest divisor up to the square root. Defaults to -1.
        decompose_both: Whether W1 is also a product of two factors if the rank is below
            half of its larger side. Defaults to False.
        rank_pattern: As in `LoRA`.
        alpha_pattern: As in `LoRA`.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(16)])
        kt.adapters.LoKr(rank=1, targets="all-linear").attach(model)
        shapes = {v.name: tuple(v.shape) for v in model.trainable_weights}
        assert shapes == {"lokr_w1": (4, 4), "lokr_w2_a": (4, 1), "lokr_w2_b": (1, 4)}
        ```

    Raises:
        TypeError: If a pattern is not a dict.
        ValueError: If a number is out of range.

    Reference:
        S.-Y. Yeh et al., 2024, "Navigating Text-To-Image Customization: From LyCORIS
        Fine-Tuning to Model Evaluation", arXiv:2309.14859.
    """

    parts = {
        keras.layers.Dense: LoKrPart,
        keras.layers.EinsumDense: LoKrPart,
        keras.layers.Conv1D: LoKrPart,
        keras.layers.Conv2D: LoKrPart,
        keras.layers.Conv3D: LoKrPart,
    }
    peft = PeftFormat(
        settings={"peft_type": "LOKR"},
        arguments={
            "rank": "r",
            "alpha": "alpha",
            "decompose_factor": "decompose_factor",
            "decompose_both": "decompose_both",
        },
        starts={"init_weights": (None, True, False, "lycoris")},
        # How a convolution is factored. The PEFT files read here have no convolutions.
        ignored=frozenset({"use_effective_conv2d"}),
        whole=True,
    )

    def __init__(
        self,
        rank: int = 8,
        alpha: float = 8,
        targets: object = None,
        decompose_factor: int = -1,
        decompose_both: bool = False,
        rank_pattern: Mapping[str, int] | None = None,
        alpha_pattern: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(rank, alpha, targets, rank_pattern, alpha_pattern)
        if decompose_factor != -1:
            why = "-1 chooses it, and otherwise it is the size of W1"
            decompose_factor = whole_number(
                "decompose_factor", decompose_factor, why=why
            )
        self.decompose_factor = int(decompose_factor)
        self.decompose_both = bool(
            one_of("decompose_both", decompose_both, (True, False))
        )

    @classmethod
    def peft_specs(
        cls,
        specs: Mapping[str, PeftTensor],
        sizes: Mapping[str, int],
        config: Mapping[str, object],
    ) -> tuple[dict[str, PeftTensor], dict[str, int]]:
        """Return the tensors of a module, and the size of each of their axes."""
        names = ("decompose_factor", "decompose_both")
        given = {x: config[x] for x in names if config.get(x) is not None}
        recipe = cls(**given)
        both = recipe.decompose_factor, recipe.decompose_both
        form = shapes(sizes["inputs"], sizes["outputs"], sizes["rank"], *both)
        axes = {**sizes, **dict(zip((*W1, *W2), (*form.w1, *form.w2), strict=True))}
        return {name: specs[name] for name in form.names()}, axes

    def part(self, target: Target) -> Part:
        """Return the part for one layer."""
        rank = by_pattern(self.rank_pattern, target.path, self.rank)
        alpha = by_pattern(self.alpha_pattern, target.path, self.alpha)
        kind = self.part_class(target.layer)
        check_native(target.layer)
        both = self.decompose_factor, self.decompose_both
        return kind(rank, self.scaling(rank, alpha), *both)

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        names = ("decompose_factor", "decompose_both")
        return super().get_config() | {name: getattr(self, name) for name in names}


def sizes(host: keras.Layer) -> tuple[int, int]:
    """Return the number of inputs, of one group in a convolution, and of outputs."""
    if window(host):
        return channels(host) // host.groups, host.filters
    return matrix.sizes(host)


def window(host: keras.Layer) -> tuple[int, ...]:
    """Return the size of a convolution's window, or `()`."""
    return tuple(getattr(host, "kernel_size", ()))
