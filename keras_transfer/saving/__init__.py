"""Files that keep what training needs, and reading them back."""

from keras_transfer.saving.adapter import load_adapter as load_adapter
from keras_transfer.saving.adapter import save_adapter as save_adapter
from keras_transfer.saving.resume import resume as resume
