"""Layers for adaptation, calibration, mixes of blocks and recurrent networks."""

from keras_transfer.layers.concat_pooling import ConcatPooling as ConcatPooling
from keras_transfer.layers.domain_randomization import (
    DomainRandomization as DomainRandomization,
)
from keras_transfer.layers.embedding_dropout import EmbeddingDropout as EmbeddingDropout
from keras_transfer.layers.gradient_reversal import GradientReversal as GradientReversal
from keras_transfer.layers.isotonic_calibration import (
    IsotonicCalibration as IsotonicCalibration,
)
from keras_transfer.layers.scalar_mix import ScalarMix as ScalarMix
from keras_transfer.layers.temperature_scaling import (
    TemperatureScaling as TemperatureScaling,
)
from keras_transfer.layers.vector_scaling import VectorScaling as VectorScaling
from keras_transfer.layers.weight_drop_lstm import WeightDropLSTM as WeightDropLSTM
