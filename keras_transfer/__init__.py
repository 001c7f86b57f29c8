"""Transfer learning for Keras 3: what trains, how fast, and with what added."""

from keras_transfer import backbones as backbones
from keras_transfer import callbacks as callbacks
from keras_transfer import data as data
from keras_transfer import models as models
from keras_transfer import optimizers as optimizers
from keras_transfer import saving as saving
from keras_transfer._version import __version__ as __version__
from keras_transfer.backbones.groups import layer_groups as layer_groups
from keras_transfer.callbacks.learning_rate_finder import (
    find_learning_rate as find_learning_rate,
)
from keras_transfer.saving.resume import resume as resume
