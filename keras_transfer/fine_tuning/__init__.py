"""fine_tune: a pretrained model made to fit a small labeled set, in one call."""

from keras_transfer.fine_tuning.fine_tune import fine_tune as fine_tune
