"""Callbacks that change what trains, and watch it, inside one `fit`."""

from keras_transfer.callbacks.gradual_unfreezing import (
    GradualUnfreezing as GradualUnfreezing,
)
from keras_transfer.callbacks.phases import Phase as Phase
