"""Callbacks that freeze, unfreeze, measure and log during `fit`."""

from keras_transfer.callbacks.energy import Energy as Energy
from keras_transfer.callbacks.gradual_unfreezing import (
    GradualUnfreezing as GradualUnfreezing,
)
from keras_transfer.callbacks.layer_group_logs import LayerGroupLogs as LayerGroupLogs
from keras_transfer.callbacks.learning_rate_curve import (
    LearningRateCurve as LearningRateCurve,
)
from keras_transfer.callbacks.learning_rate_finder import (
    find_learning_rate as find_learning_rate,
)
from keras_transfer.callbacks.phases import Phase as Phase
from keras_transfer.callbacks.rank_budget import RankBudget as RankBudget
from keras_transfer.callbacks.target_validation import (
    TargetValidation as TargetValidation,
)
