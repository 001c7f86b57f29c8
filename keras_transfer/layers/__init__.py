"""Layers for adaptation, mixes of blocks and recurrent networks, for any model."""

from keras_transfer.layers.concat_pooling import ConcatPooling as ConcatPooling
from keras_transfer.layers.domain_randomization import (
    DomainRandomization as DomainRandomization,
)
from keras_transfer.layers.embedding_dropout import EmbeddingDropout as EmbeddingDropout
from keras_transfer.layers.gradient_reversal import GradientReversal as GradientReversal
from keras_transfer.layers.scalar_mix import ScalarMix as ScalarMix
from keras_transfer.layers.weight_drop_lstm import WeightDropLSTM as WeightDropLSTM
