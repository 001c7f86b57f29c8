"""LoRA and rank-stabilized LoRA: a low-rank pair next to each frozen matrix."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import keras

from keras_transfer._arguments import dropout_rate
from keras_transfer._arguments import one_of
from keras_transfer.adapters.convolution_pairs import AnyConvPair
from keras_transfer.adapters.convolution_pairs import ConvPair
from keras_transfer.adapters.convolution_pairs import DepthwisePair
from keras_transfer.adapters.convolution_pairs import SeparablePair
from keras_transfer.adapters.convolution_pairs import TransposedPair
from keras_transfer.adapters.low_rank import DensePair
from keras_transfer.adapters.low_rank import EinsumPair
from keras_transfer.adapters.low_rank import EmbeddingPair
from keras_transfer.adapters.peft_format import PeftFormat
from keras_transfer.adapters.rank_and_alpha import RankedAdapter
from keras_transfer.adapters.recurrent_pairs import RecurrentPair
from keras_transfer.adapters.targets import biased_layers
from keras_transfer.adapters.targets import Target

BIAS = ("none", "all", "lora_only")


@keras.saving.register_keras_serializable("keras_transfer")
class LoRA(RankedAdapter):
    """Learn a low-rank change of chosen weight matrices instead of the matrices.

    `y = act(x W + b + alpha / rank * (dropout(x) A) B)` with W and b frozen, A of
    `rank` columns and B of `rank` rows. B starts at zero, so the model starts as it
    was. Of BERT-base 0.3 % of the parameters train, the optimizer keeps slots for
    these alone, and `kt.adapters.merge` folds them into W: inference then costs what
    it did. The product A B is not formed in training. Factors and start are those of
    Hugging Face PEFT, whose files fit.

    Targets can be Dense, EinsumDense, embeddings, convolutions (1D to 3D, also grouped,
    depthwise, separable and transposed) and the cells of LSTM, GRU and SimpleRNN. A
    convolution has A with its window to `rank` channels, and B of size 1. Where that is
    not its form: a grouped or depthwise kernel K becomes `K + alpha / rank * A B`, with
    A over the window (and the channels of a group), B over the outputs; a separable one
    has the pair at its pointwise kernel; a transposed one has A of size 1 and B with
    the window; a cell has two pairs, `W + s A B` for its kernel and `U + s C D` for its
    recurrent kernel, formed once in a pass and without dropout. Other layers cannot be
    targets: ConvLSTM, position embeddings, and what has a call of its own.

    Args:
        rank: Whole number, 1 or more, at most the smaller side of a matrix. Default 8.
        alpha: Number; the product is scaled by alpha / rank. Default 16.
        targets: None for the default of the family: queries and values of transformers'
            self-attention, convolutions in the blocks of convolutional networks but
            depthwise and grouped ones. `"all-linear"` for each Dense and EinsumDense
            below the head. Of both, layers that the rank does not fit are left out, and
            counted in the printed line. Or a regular expression that is searched in
            paths such as
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
        TypeError: If a pattern is not a dict.
        ValueError: If a number is not in its range or `bias` is unknown.

    Reference:
        E. Hu et al., 2021, "LoRA: Low-Rank Adaptation of Large Language Models",
        arXiv:2106.09685.
    """

    parts = {
        keras.layers.Dense: DensePair,
        keras.layers.EinsumDense: EinsumPair,
        keras.layers.Conv1D: AnyConvPair,
        keras.layers.Conv2D: ConvPair,
        keras.layers.Conv3D: AnyConvPair,
        keras.layers.DepthwiseConv1D: DepthwisePair,
        keras.layers.DepthwiseConv2D: DepthwisePair,
        keras.layers.SeparableConv1D: SeparablePair,
        keras.layers.SeparableConv2D: SeparablePair,
        keras.layers.Conv1DTranspose: TransposedPair,
        keras.layers.Conv2DTranspose: TransposedPair,
        keras.layers.Conv3DTranspose: TransposedPair,
        keras.layers.LSTMCell: RecurrentPair,
        keras.layers.GRUCell: RecurrentPair,
        keras.layers.SimpleRNNCell: RecurrentPair,
        keras.layers.Embedding: EmbeddingPair,
        keras.layers.ReversibleEmbedding: EmbeddingPair,
    }
    peft = PeftFormat(
        settings={"peft_type": "LORA", "use_dora": False, "use_rslora": False},
        arguments={
            "rank": "r",
            "alpha": "lora_alpha",
            "dropout": "lora_dropout",
            "bias": "bias",
        },
        starts={
            "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal")
        },
        ignored=frozenset(
            {"eva_config", "fan_in_fan_out", "loftq_config", "qalora_group_size"}
        ),
        remedy=" Save it with PEFT's `path_initial_model_for_weight_conversion`, which "
        "makes a plain LoRA.",
    )

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
        super().__init__(rank, alpha, targets, rank_pattern, alpha_pattern)
        self.dropout = dropout_rate("dropout", dropout)
        self.bias = one_of("bias", bias, BIAS)

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
        return super().get_config() | {"dropout": self.dropout, "bias": self.bias}


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
        TypeError: If a pattern is not a dict.
        ValueError: If a number is not in its range or `bias` is unknown.

    Reference:
        D. Kalajdzievski, 2023, "A Rank Stabilization Scaling Factor for Fine-Tuning
        with LoRA", arXiv:2312.03732.
    """

    peft = dataclasses.replace(
        LoRA.peft,
        settings=LoRA.peft.settings | {"use_rslora": True},
        divisor=math.sqrt,
    )

    def scaling(self, rank: int, alpha: float) -> float:
        """Return the factor of the product."""
        return alpha / math.sqrt(rank)
