"""Plain layers that know nothing of backbones."""

from keras_transfer.layers.domain_randomization import (
    DomainRandomization as DomainRandomization,
)
from keras_transfer.layers.gradient_reversal import GradientReversal as GradientReversal
