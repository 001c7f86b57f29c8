"""LoRADense and similar layers, with frozen weights and a trainable low-rank pair."""

from __future__ import annotations

import keras

from keras_transfer import _keras
from keras_transfer._arguments import dropout_rate
from keras_transfer.adapters import adapter_part as parts
from keras_transfer.adapters.convolution_pairs import ConvPair
from keras_transfer.adapters.in_place.forward import Hooked
from keras_transfer.adapters.in_place.frozen_weights import freeze
from keras_transfer.adapters.low_rank import DensePair
from keras_transfer.adapters.low_rank import EinsumPair
from keras_transfer.adapters.low_rank import EmbeddingPair
from keras_transfer.adapters.low_rank import LowRankPair
from keras_transfer.adapters.rank_and_alpha import check_alpha
from keras_transfer.adapters.rank_and_alpha import check_host
from keras_transfer.adapters.rank_and_alpha import check_native
from keras_transfer.adapters.rank_and_alpha import check_rank


class LowRankLayer(Hooked):
    """Mixin for layers that create a low-rank pair when they are built."""

    part_class: type[LowRankPair] = LowRankPair

    def _set_pair(self, rank: int, alpha: float, dropout: float) -> None:
        self.rank, self.alpha = check_rank(rank), check_alpha(alpha)
        self.dropout = dropout_rate("dropout", dropout)

    def build(self, input_shape: object = None) -> None:
        """Create the weights, freeze them, and add the pair."""
        if self.built:
            return
        super().build(input_shape)
        check_host(self, self.name, self.part_class, self.rank)
        part = self.part_class(self.rank, self.alpha / self.rank, self.dropout)
        freeze(self)
        part.create(self)
        parts.add(self, part)

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        own = {"rank": self.rank, "alpha": self.alpha, "dropout": self.dropout}
        return super().get_config() | own


@keras.saving.register_keras_serializable("keras_transfer")
class LoRADense(LowRankLayer, keras.layers.Dense):
    """A Dense with a frozen kernel and bias, and a trainable low-rank pair.

    It computes `y = act(x W + b + alpha / rank * (dropout(x) A) B)`. Use it instead of
    `keras.layers.Dense` when you build a model. For an existing model use
    `kt.adapters.LoRA`, which adds pairs to its layers. `trainable` freezes and
    unfreezes the pair. W and b stay frozen.

    Args:
        units: Number of outputs.
        activation: Activation, as for `keras.layers.Dense`. Defaults to None.
        rank: Whole number, 1 or more, at most the smaller side of W. Defaults to 8.
        alpha: Number. The product is scaled by alpha / rank. Defaults to 16.
        dropout: Rate in [0, 1) of dropout on the inputs of A. Defaults to 0.
        **kwargs: Other arguments of `keras.layers.Dense`.

    Input shape:
        `(batch, ..., inputs)`.

    Output shape:
        `(batch, ..., units)`.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        dense = keras.layers.Dense(4)
        x = np.ones((2, 6))
        y = dense(x)
        layer = kt.adapters.LoRADense.from_dense(dense, rank=2)
        assert np.array_equal(layer(x), y)  # B starts at zero
        assert len(layer.trainable_weights) == 2
        ```

    Raises:
        ValueError: If a number is out of range, or the rank is too large for W.

    Reference:
        E. Hu et al., 2021, "LoRA: Low-Rank Adaptation of Large Language Models",
        arXiv:2106.09685.
    """

    part_class = DensePair
    plain_class = keras.layers.Dense

    def __init__(
        self,
        units: int,
        activation: object = None,
        *,
        rank: int = 8,
        alpha: float = 16,
        dropout: float = 0.0,
        **kwargs: object,
    ) -> None:
        super().__init__(units, activation, **kwargs)
        self._set_pair(rank, alpha, dropout)

    @classmethod
    def from_dense(
        cls,
        layer: keras.layers.Dense,
        *,
        rank: int = 8,
        alpha: float = 16,
        dropout: float = 0.0,
    ) -> LoRADense:
        """Return a new layer with the settings and the weights of a Dense.

        Args:
            layer: A `keras.layers.Dense`. If it is built, the new layer is built too.
            rank: As in the constructor.
            alpha: As in the constructor.
            dropout: As in the constructor.

        Raises:
            TypeError: If `layer` is not a Dense.
            ValueError: If the layer already has a pair, or a number is out of range.
        """
        if not isinstance(layer, keras.layers.Dense):
            raise TypeError(f"from_dense expects a Dense, not {layer!r}.")
        if isinstance(layer, Hooked):
            raise ValueError(f"{layer.name!r} already has adapters. Pass a Dense.")
        check_native(layer)
        own = {"rank": rank, "alpha": alpha, "dropout": dropout}
        new = cls.from_config(layer.get_config() | {"trainable": True} | own)
        if layer.built:
            new.build(layer.get_build_config()["input_shape"])
            weights = zip(*map(_keras.own_weights, (new, layer)), strict=True)
            for variable, source in weights:
                variable.assign(source)
        return new


@keras.saving.register_keras_serializable("keras_transfer")
class LoRAEinsumDense(LowRankLayer, keras.layers.EinsumDense):
    """An EinsumDense with a frozen kernel and bias, and a trainable low-rank pair.

    This is `LoRADense` for the projections of attention. The contracted axes of the
    kernel are flattened to one axis, and so are the new axes. A query kernel
    `(384, 12, 32)` has A `(384, rank)` and B `(rank, 384)`, as in PEFT.

    Args:
        equation: Einsum equation, as for `keras.layers.EinsumDense`.
        output_shape: Shape of the outputs without the batch axis.
        rank: Whole number, 1 or more, at most the smaller flattened axis. Defaults to
            8.
        alpha: Number. The product is scaled by alpha / rank. Defaults to 16.
        dropout: Rate in [0, 1) of dropout on the inputs of A. Defaults to 0.
        **kwargs: Other arguments of `keras.layers.EinsumDense`.

    Input shape:
        As in the equation.

    Output shape:
        As in the equation.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        heads = kt.adapters.LoRAEinsumDense("btc,chd->bthd", (None, 2, 3), rank=2)
        assert heads(np.ones((1, 5, 6))).shape == (1, 5, 2, 3)
        assert [tuple(v.shape) for v in heads.trainable_weights] == [(6, 2), (2, 6)]
        ```

    Raises:
        ValueError: If a number is out of range, the rank is too large, or the kernel is
            not a matrix under this equation.

    Reference:
        As in `LoRADense`: E. Hu et al., 2021, arXiv:2106.09685.
    """

    part_class = EinsumPair
    plain_class = keras.layers.EinsumDense

    def __init__(
        self,
        equation: str,
        output_shape: object,
        *,
        rank: int = 8,
        alpha: float = 16,
        dropout: float = 0.0,
        **kwargs: object,
    ) -> None:
        super().__init__(equation, output_shape, **kwargs)
        self._set_pair(rank, alpha, dropout)


@keras.saving.register_keras_serializable("keras_transfer")
class LoRAConv2D(LowRankLayer, keras.layers.Conv2D):
    """A Conv2D with a frozen kernel and bias, and a trainable low-rank pair.

    This is `LoRADense` with two convolutions, as in PEFT. A has the layer's kernel size
    and strides, and `rank` filters. B has kernel size 1 and the layer's filters. With
    `groups`, A B is formed and used like the kernel, so the groups stay separate.

    Args:
        filters: Number of output channels.
        kernel_size: One or two whole numbers.
        rank: Whole number, 1 or more, at most the number of filters and the number of
            inputs of one filter. Defaults to 8.
        alpha: Number. The product is scaled by alpha / rank. Defaults to 16.
        dropout: Rate in [0, 1) of dropout on the inputs of A. Defaults to 0.
        **kwargs: Other arguments of `keras.layers.Conv2D`.

    Input shape:
        `(batch, height, width, channels)`, or channels first.

    Output shape:
        `(batch, height, width, filters)`, or channels first.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        layer = kt.adapters.LoRAConv2D(6, 3, rank=2)
        assert layer(np.ones((1, 8, 8, 4))).shape == (1, 6, 6, 6)
        shapes = [tuple(v.shape) for v in layer.trainable_weights]
        assert shapes == [(3, 3, 4, 2), (2, 6)]
        ```

    Raises:
        ValueError: If a number is out of range, or the rank is too large.

    Reference:
        As in `LoRADense`: E. Hu et al., 2021, arXiv:2106.09685.
    """

    part_class = ConvPair
    plain_class = keras.layers.Conv2D

    def __init__(
        self,
        filters: int,
        kernel_size: object,
        *,
        rank: int = 8,
        alpha: float = 16,
        dropout: float = 0.0,
        **kwargs: object,
    ) -> None:
        super().__init__(filters, kernel_size, **kwargs)
        self._set_pair(rank, alpha, dropout)


@keras.saving.register_keras_serializable("keras_transfer")
class LoRAEmbedding(LowRankLayer, keras.layers.Embedding):
    """An Embedding with frozen rows, and a trainable low-rank pair.

    It computes `y = E[word] + alpha / rank * A[word] B`. As in PEFT, A starts at zero,
    B starts at random values, and there is no dropout.

    Args:
        input_dim: Number of words.
        output_dim: Size of a row.
        rank: Whole number, 1 or more, at most input_dim and output_dim. Defaults to 8.
        alpha: Number. The product is scaled by alpha / rank. Defaults to 16.
        **kwargs: Other arguments of `keras.layers.Embedding`.

    Input shape:
        Whole numbers of any shape, `(batch, ...)`.

    Output shape:
        `(batch, ..., output_dim)`.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        layer = kt.adapters.LoRAEmbedding(20, 6, rank=2)
        assert layer(np.array([[1, 2, 3]])).shape == (1, 3, 6)
        ```

    Raises:
        ValueError: If a number is out of range, or the rank is too large.

    Reference:
        As in `LoRADense`: E. Hu et al., 2021, arXiv:2106.09685.
    """

    part_class = EmbeddingPair
    plain_class = keras.layers.Embedding

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        *,
        rank: int = 8,
        alpha: float = 16,
        **kwargs: object,
    ) -> None:
        kwargs.pop("dropout", None)
        super().__init__(input_dim, output_dim, **kwargs)
        self._set_pair(rank, alpha, 0.0)

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        return {k: v for k, v in super().get_config().items() if k != "dropout"}


for _layer in (LoRADense, LoRAEinsumDense, LoRAConv2D, LoRAEmbedding):
    _layer.part_class.layer_class = _layer
