"""LoRA and rank-stabilised LoRA: a low-rank pair beside each frozen matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping

import keras

from keras_transfer._arguments import dropout_rate
from keras_transfer._arguments import one_of
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.lora_layers import LoRAConv2D
from keras_transfer.adapters.lora_layers import LoRADense
from keras_transfer.adapters.lora_layers import LoRAEinsumDense
from keras_transfer.adapters.lora_layers import LoRAEmbedding
from keras_transfer.adapters.ranks import check_alpha
from keras_transfer.adapters.ranks import check_host
from keras_transfer.adapters.ranks import check_rank
from keras_transfer.adapters.targets import biased_layers
from keras_transfer.adapters.targets import by_pattern
from keras_transfer.adapters.targets import check_patterns
from keras_transfer.adapters.targets import Target

BIAS = ("none", "all", "lora_only")


@keras.saving.register_keras_serializable("keras_transfer")
class LoRA(Adapter):
    """Learn a low-rank change of chosen weight matrices instead of the matrices.

    `y = act(x W + b + alpha / rank * (dropout(x) A) B)` with W and b frozen, A of
    `rank` columns and B of `rank` rows. B starts at zero, so the model starts as it
    was. Of BERT-base 0.3 % of the parameters train, the optimizer keeps slots for
    these alone, and `kt.adapters.merge` folds them into W: inference then costs what
    it did. The product A B is not formed in training. Factors and start are those of
    Hugging Face PEFT, whose files fit.

    Args:
        rank: Whole number, 1 or more, at most the smaller side of a matrix. Default 8.
        alpha: Number; the product is scaled by alpha / rank. Default 16.
        targets: None for the default of the family: queries and values of transformers'
            self-attention, convolutions in the blocks of convolutional networks.
            `"all-linear"` for each Dense and EinsumDense below the head. Or a regular
            expression that is searched in paths such as
            `"transformer_layer_0/self_attention_layer/query"`, or a list of
            expressions and layers.
        dropout: Rate in [0, 1) of dropout on the inputs of A. Default 0.
        rank_pattern: Dict of expression over the end of a path to a rank of its own:
            `{"key": 4}`, as in PEFT. Default None.
        alpha_pattern: The same for alpha. Default None.
        bias: Which of the model's own biases learn too: `"none"`, `"all"` below the
            head, or `"lora_only"`, those of the targets. Default `"none"`.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(4, name="hidden")]
        )
        kt.adapters.LoRA(rank=2, targets="hidden").attach(model)
        model.compile("adam", "mse")
        model.fit(np.ones((8, 4)), np.ones((8, 4)), verbose=0)
        kt.adapters.merge(model)
        ```

    Raises:
        TypeError: If a pattern is no dict.
        ValueError: If a number is not in its range or `bias` is unknown.

    Reference:
        E. Hu et al., 2021, "LoRA: Low-Rank Adaptation of Large Language Models",
        arXiv:2106.09685.
    """

    parts = {
        keras.layers.Dense: LoRADense.part_class,
        keras.layers.EinsumDense: LoRAEinsumDense.part_class,
        keras.layers.Conv2D: LoRAConv2D.part_class,
        keras.layers.Embedding: LoRAEmbedding.part_class,
        keras.layers.ReversibleEmbedding: LoRAEmbedding.part_class,
    }

    def __init__(
        self,
        rank: int = 8,
        alpha: float = 16,
        targets: object = None,
        dropout: float = 0.0,
        rank_pattern: Mapping[str, int] | None = None,
        alpha_pattern: Mapping[str, float] | None = None,
        bias: str = "none",
    ) -> None:
        super().__init__(targets)
        for pattern in (rank_pattern, alpha_pattern):
            if not isinstance(pattern, Mapping | None):
                raise TypeError(f"{pattern!r} is no dict of expressions to numbers.")
        for each in (rank, *(rank_pattern or {}).values()):
            check_rank(each)
        for each in (alpha, *(alpha_pattern or {}).values()):
            check_alpha(each)
        one_of("bias", bias, BIAS)
        self.rank = int(rank)
        self.alpha = alpha
        self.dropout = dropout_rate("dropout", dropout)
        self.rank_pattern = dict(rank_pattern or {})
        self.alpha_pattern = dict(alpha_pattern or {})
        self.bias = bias

    def find(self, model: keras.Layer) -> list[Target]:
        """Return the targets; each pattern must be for one of them."""
        targets = super().find(model)
        check_patterns((*self.rank_pattern, *self.alpha_pattern), targets)
        return targets

    def scaling(self, rank: int, alpha: float) -> float:
        """Return the factor of the product."""
        return alpha / rank

    def part(self, target: Target) -> Part:
        """Return the pair for one layer."""
        layer = target.layer
        rank = by_pattern(self.rank_pattern, target.path, self.rank)
        alpha = by_pattern(self.alpha_pattern, target.path, self.alpha)
        kind = self.part_class(layer)
        check_host(layer, target.path, kind, rank)
        return kind(rank, self.scaling(rank, alpha), dropout=self.dropout)

    def trained(self, model: keras.Layer, targets: list[Target]) -> list:
        """Return the biases that learn too."""
        if self.bias == "none":
            return []
        layers = [target.layer for target in targets]
        if self.bias == "all":
            layers = biased_layers(model)
        return [each.bias for each in layers if getattr(each, "bias", None) is not None]

    def get_config(self) -> dict:
        """Return the arguments."""
        names = ("rank", "alpha", "dropout", "rank_pattern", "alpha_pattern", "bias")
        return super().get_config() | {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable("keras_transfer")
class RsLoRA(LoRA):
    """LoRA scaled by `alpha / sqrt(rank)`, so that large ranks learn as small ones do.

    With `alpha / rank` the gradient of a pair shrinks as its rank grows, and ranks
    above about 32 gain nothing. In PEFT it is `LoraConfig(use_rslora=True)`.

    Args:
        rank: As in `LoRA`.
        alpha: Number; the product is scaled by alpha / sqrt(rank). Default 16.
        targets: As in `LoRA`.
        dropout: As in `LoRA`.
        rank_pattern: As in `LoRA`.
        alpha_pattern: As in `LoRA`.
        bias: As in `LoRA`.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
        kt.adapters.RsLoRA(rank=32, targets="all-linear").attach(model)
        ```

    Raises:
        TypeError: If a pattern is no dict.
        ValueError: If a number is not in its range or `bias` is unknown.

    Reference:
        D. Kalajdzievski, 2023, "A Rank Stabilization Scaling Factor for Fine-Tuning
        with LoRA", arXiv:2312.03732.
    """

    def scaling(self, rank: int, alpha: float) -> float:
        """Return the factor of the product."""
        return alpha / math.sqrt(rank)
