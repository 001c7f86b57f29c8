"""Train a pretrained model on few labels, compare the ways, and adapt it."""

from keras_transfer.fine_tuning.adaptation.adapt import adapt as adapt
from keras_transfer.fine_tuning.adaptation.result import Adaptation as Adaptation
from keras_transfer.fine_tuning.comparison.compare import compare as compare
from keras_transfer.fine_tuning.comparison.curve import LearningCurve as LearningCurve
from keras_transfer.fine_tuning.comparison.learning_curve import (
    learning_curve as learning_curve,
)
from keras_transfer.fine_tuning.comparison.verdict import Verdict as Verdict
from keras_transfer.fine_tuning.fine_tune import fine_tune as fine_tune
from keras_transfer.fine_tuning.pretraining.continue_pretraining import (
    continue_pretraining as continue_pretraining,
)
from keras_transfer.fine_tuning.pretraining.result import Pretraining as Pretraining
