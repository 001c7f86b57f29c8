"""Losses between two domains, of pairs, and between a teacher and a student."""

from keras_transfer.losses.class_confusion import ClassConfusion as ClassConfusion
from keras_transfer.losses.classifier_discrepancy import (
    ClassifierDiscrepancy as ClassifierDiscrepancy,
)
from keras_transfer.losses.conditional_entropy import (
    ConditionalEntropy as ConditionalEntropy,
)
from keras_transfer.losses.coral import CORAL as CORAL
from keras_transfer.losses.cosine_pairs import CosinePairs as CosinePairs
from keras_transfer.losses.domain_classification import (
    DomainClassification as DomainClassification,
)
from keras_transfer.losses.feature_norm import FeatureNorm as FeatureNorm
from keras_transfer.losses.joint_mmd import JointMMD as JointMMD
from keras_transfer.losses.margin_disparity import MarginDisparity as MarginDisparity
from keras_transfer.losses.mmd import MMD as MMD
from keras_transfer.losses.state_distillation import (
    AttentionDistillation as AttentionDistillation,
)
from keras_transfer.losses.state_distillation import (
    StateDistillation as StateDistillation,
)
