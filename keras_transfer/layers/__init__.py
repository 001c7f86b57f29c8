"""Layers for domain adaptation and for mixes of blocks, for use in any model."""

from keras_transfer.layers.domain_randomization import (
    DomainRandomization as DomainRandomization,
)
from keras_transfer.layers.gradient_reversal import GradientReversal as GradientReversal
from keras_transfer.layers.scalar_mix import ScalarMix as ScalarMix
