"""fine_tune: train a pretrained model on a small labeled set in one call."""

from keras_transfer.fine_tuning.fine_tune import fine_tune as fine_tune
