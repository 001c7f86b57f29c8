"""Files that keep what training needs, and reading them back."""

from keras_transfer.saving.resume import resume as resume
