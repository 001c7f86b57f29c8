"""Train a pretrained model on a small labeled set, and compare the ways to do it."""

from keras_transfer.fine_tuning.comparison.compare import compare as compare
from keras_transfer.fine_tuning.comparison.curve import LearningCurve as LearningCurve
from keras_transfer.fine_tuning.comparison.learning_curve import (
    learning_curve as learning_curve,
)
from keras_transfer.fine_tuning.comparison.verdict import Verdict as Verdict
from keras_transfer.fine_tuning.fine_tune import fine_tune as fine_tune
