"""LoRA and rank-stabilized LoRA: a low-rank pair next to each frozen matrix."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer._arguments import dropout_rate
from keras_transfer._arguments import one_of
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.biased_pairs import BiasedDensePair
from keras_transfer.adapters.biased_pairs import BiasedEinsumPair
from keras_transfer.adapters.convolution_pairs import AnyConvPair
from keras_transfer.adapters.convolution_pairs import ConvPair
from keras_transfer.adapters.convolution_pairs import DepthwisePair
from keras_transfer.adapters.convolution_pairs import SeparablePair
from keras_transfer.adapters.convolution_pairs import TransposedPair
from keras_transfer.adapters.in_place.compiled_model import stale_optimizers
from keras_transfer.adapters.in_place.layer_state import check_name
from keras_transfer.adapters.low_rank import DensePair
from keras_transfer.adapters.low_rank import EinsumPair
from keras_transfer.adapters.low_rank import EmbeddingPair
from keras_transfer.adapters.matrix import Unfit
from keras_transfer.adapters.peft_format import PeftFormat
from keras_transfer.adapters.plan import Plan
from keras_transfer.adapters.rank_and_alpha import RankedAdapter
from keras_transfer.adapters.recurrent_pairs import RecurrentPair
from keras_transfer.adapters.starts import loftq_values
from keras_transfer.adapters.starts import pissa_values
from keras_transfer.adapters.starts import PissaDensePair
from keras_transfer.adapters.starts import PissaEinsumPair
from keras_transfer.adapters.targets import biased_layers
from keras_transfer.adapters.targets import Target
from keras_transfer.quantization.packed_layers import Packing
from keras_transfer.quantization.quantize import fitting_block_size
from keras_transfer.quantization.quantize import pack_model

BIAS = ("none", "all", "lora_only")  # as in PEFT
PAIR = "pair"  # PEFT's lora_bias
INITS = ("default", "pissa", "loftq")
# The pairs that can start from a kernel, and their form in PiSSA.
STARTS = {DensePair: PissaDensePair, EinsumPair: PissaEinsumPair}
# The pairs that can have a bias, and their form with a bias.
BIASED = {DensePair: BiasedDensePair, EinsumPair: BiasedEinsumPair}


@keras.saving.register_keras_serializable("keras_transfer")
class LoRA(RankedAdapter):
    """Freeze chosen weight matrices and train a low-rank update of each.

    A layer computes `y = act(x W + b + alpha / rank * (dropout(x) A) B)`. W and b are
    frozen, A has `rank` columns and B has `rank` rows. B starts at zero, so attaching
    does not change the outputs. In BERT-base 0.3 % of the parameters train, and the
    optimizer keeps slots only for these. `kt.adapters.merge` adds the product to W, so
    inference costs the same as before. Training does not form the product A B. Factors
    and initialization match Hugging Face PEFT, and `kt.load_adapter` reads PEFT's
    files.

    Targets can be Dense, EinsumDense, embeddings, convolutions (1D to 3D, also grouped,
    depthwise, separable and transposed) and the cells of LSTM, GRU and SimpleRNN. In a
    convolution, A has the layer's window and `rank` output channels, and B has a window
    of size 1. Some layers differ:

    - A grouped or depthwise kernel K becomes `K + alpha / rank * A B`. A covers the
      window (and the channels of a group), B covers the outputs.
    - A separable convolution has the pair at its pointwise kernel.
    - In a transposed convolution A has a window of size 1, and B has the layer's.
    - A recurrent cell has two pairs: `W + s A B` for its kernel and `U + s C D` for its
      recurrent kernel. Both sums are formed once in a pass, without dropout.

    Other layers cannot be targets, such as ConvLSTM, position embeddings, and
    subclasses that override `call`.

    Args:
        rank: Whole number, 1 or more, at most the smaller side of a matrix. Defaults
            to 8.
        alpha: Number. The product is scaled by alpha / rank. Defaults to 16.
        targets: None, `"all-linear"`, a regular expression, or a list of expressions
            and layers. None selects the default of the model family: the query and
            value projections of a transformer's self-attention, or the convolutions in
            the blocks of a convolutional network, except depthwise and grouped
            convolutions. `"all-linear"` selects each Dense and EinsumDense below the
            head. None and `"all-linear"` leave out layers that the rank does not fit,
            and the printed line counts these layers. An expression is searched in paths
            such as `"transformer_layer_0/self_attention_layer/query"`. Defaults to
            None.
        dropout: Rate in [0, 1) of dropout on the inputs of A. Defaults to 0.
        rank_pattern: Dict from regular expression to rank, as in PEFT: `{"key": 4}`.
            An expression has to match the end of a layer's path. Defaults to None.
        alpha_pattern: Dict from regular expression to alpha. Defaults to None.
        bias: Which of the model's own biases also train: `"none"`, `"all"` (all biases
            below the head), or `"lora_only"` (the targets' biases). With `"pair"` each
            pair gets a bias of its own, so the model does not change. PEFT calls this
            `lora_bias`. Defaults to `"none"`.
        init: The start of A and B in Dense and EinsumDense. `"default"` is the start of
            PEFT, with B = 0. `"pissa"` starts with the largest singular values of W, so
            these directions train first. The pair adds `A B - A0 B0`, so the outputs
            only change by rounding, and A0 and B0 are saved too. `"loftq"` takes a
            float model and packs its kernels in NF4 as `kt.quantize` does, in blocks of
            64 weights (fewer if 64 does not fit). In 5 turns, A B is fitted to the
            error W - Q of the packed kernel Q, and Q to W - A B. So the start is nearer
            to W than Q alone. Defaults to `"default"`.

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
        ValueError: If a number is out of range, or `bias` or `init` is unknown.

    Reference:
        E. Hu et al., 2021, "LoRA: Low-Rank Adaptation of Large Language Models",
        arXiv:2106.09685; T. Dettmers et al., 2023, "QLoRA: Efficient Finetuning of
        Quantized LLMs", arXiv:2305.14314; F. Meng et al., 2024, "PiSSA: Principal
        Singular Values and Singular Vectors Adaptation of Large Language Models",
        arXiv:2404.02948; Y. Li et al., 2023, "LoftQ: LoRA-Fine-Tuning-Aware
        Quantization for Large Language Models", arXiv:2310.08659.
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
            {
                *("eva_config", "fan_in_fan_out", "lora_bias", "loftq_config"),
                *("qalora_group_size",),
            }
        ),
        remedy=" Save it with PEFT's `path_initial_model_for_weight_conversion`, which "
        "makes a plain LoRA.",
        biases=BIAS,
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
        init: str = "default",
    ) -> None:
        super().__init__(rank, alpha, targets, rank_pattern, alpha_pattern)
        self.dropout = dropout_rate("dropout", dropout)
        self.bias = one_of("bias", bias, (*BIAS, PAIR))
        self.init = one_of("init", init, INITS)
        if self.bias == PAIR and self.init != "default":
            raise ValueError(
                f"bias='pair' is not supported with init={init!r}, as in PEFT. Use "
                "init='default'."
            )

    def part(self, target: Target) -> Part:
        """Return the part for one layer.

        Raises:
            ValueError: If the layer cannot have this `init`.
        """
        part = super().part(target)
        kind = type(part)
        if self.bias == PAIR:
            if kind not in BIASED:
                raise Unfit(
                    "bias='pair' is for a Dense or an EinsumDense. The layer "
                    f"{target.path!r} has a {kind.__name__}. Leave it out of the "
                    "targets, or use bias='none'."
                )
            return BIASED[kind].from_config(part.get_config())
        if self.init == "default":
            return part
        if kind not in STARTS:
            raise Unfit(
                f"init={self.init!r} needs the kernel of a Dense or an EinsumDense as "
                f"one matrix. The layer {target.path!r} has a {kind.__name__}. Leave "
                "it out of the targets, or use init='default'."
            )
        if self.init == "loftq":
            return part
        return STARTS[kind].from_config(part.get_config())

    @classmethod
    def peft_parts(cls, config: Mapping[str, object]) -> Mapping[type, type[Part]]:
        """Return the part of each layer class for an adapter with PEFT's `config`."""
        if not config.get("lora_bias"):
            return cls.parts
        return {layer: BIASED.get(part, part) for layer, part in cls.parts.items()}

    def first_values(self, plan: Plan) -> dict[str, dict[str, np.ndarray]]:
        """Return the start of PiSSA for each target."""
        if self.init != "pissa":
            return {}
        return {x.path: pissa_values(part, x.layer) for x, part in plan.pairs}

    def attach(
        self,
        model: keras.Model,
        name: str = "default",
        *,
        train: object = None,
        verbose: int = 1,
    ) -> keras.Model:
        """Add this adapter to `model` in place. LoftQ also quantizes the model.

        Args:
            model: As in `Adapter.attach`.
            name: As in `Adapter.attach`.
            train: As in `Adapter.attach`.
            verbose: As in `Adapter.attach`.

        Returns:
            The model.

        Raises:
            ValueError: As in `Adapter.attach`, or if the model of LoftQ is already
                quantized.
        """
        if self.init != "loftq":
            return super().attach(model, name, train=train, verbose=verbose)
        check_name(model, name)
        plan = self.plan(model, train=train)
        stale_optimizers(model, new_weights=True)
        block_size = fitting_block_size(model)
        starts = {
            x.path: (x.layer, *loftq_values(part, x.layer, block_size))
            for x, part in plan.pairs
        }
        packed = {id(layer): each for layer, _, each in starts.values()}
        said = pack_model(model, Packing(block_size, True), packed)
        if verbose:
            print(said)
        values = {path: each for path, (_, each, _) in starts.items()}
        plan = self.plan(model, train=train)
        plan.install(model, name, values)
        if verbose:
            print(plan.summary(model, name))
        return model

    def trained(self, model: keras.Layer, targets: list[Target]) -> list:
        """Return the biases that also train."""
        if self.bias in ("none", PAIR):
            return []
        layers = [target.layer for target in targets]
        if self.bias == "all":
            layers = biased_layers(model)
        return [each.bias for each in layers if getattr(each, "bias", None) is not None]

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        own = {"dropout": self.dropout, "bias": self.bias}
        if self.init != "default":  # so files and caches of earlier versions still fit
            own["init"] = self.init
        return super().get_config() | own


@keras.saving.register_keras_serializable("keras_transfer")
class RsLoRA(LoRA):
    """LoRA scaled by `alpha / sqrt(rank)`, so large ranks train as well as small ones.

    With `alpha / rank` the gradient of a pair shrinks as its rank grows, and ranks
    above about 32 bring no gain. PEFT calls this `LoraConfig(use_rslora=True)`.

    Args:
        rank: As in `LoRA`.
        alpha: Number. The product is scaled by alpha / sqrt(rank). Defaults to 16.
        targets: As in `LoRA`.
        dropout: As in `LoRA`.
        rank_pattern: As in `LoRA`.
        alpha_pattern: As in `LoRA`.
        bias: As in `LoRA`.
        init: As in `LoRA`.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
        kt.adapters.RsLoRA(rank=32, targets="all-linear").attach(model)
        ```

    Raises:
        TypeError: If a pattern is not a dict.
        ValueError: If a number is out of range or `bias` is unknown.

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
        """Return the factor that scales the product."""
        return alpha / math.sqrt(rank)
