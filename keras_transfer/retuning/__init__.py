"""Train a served model on new data, and publish it only if it is not worse."""

from keras_transfer.retuning.result import Retuning as Retuning
from keras_transfer.retuning.retune import retune as retune
