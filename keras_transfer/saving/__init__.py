"""Save adapters to files, load them, and resume the training of saved models."""

from keras_transfer.saving.resume import resume as resume
from keras_transfer.saving.save_load import load_adapter as load_adapter
from keras_transfer.saving.save_load import save_adapter as save_adapter
