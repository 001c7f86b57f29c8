"""Analyze a model or its features. Nothing in this package changes them."""

from keras_transfer._instead import attributes_instead as _attributes_instead
from keras_transfer.analysis.audit.counterfactual import (
    counterfactual as counterfactual,
)
from keras_transfer.analysis.audit.counterfactual_audit import (
    CounterfactualAudit as CounterfactualAudit,
)
from keras_transfer.analysis.audit.fairness import fairness as fairness
from keras_transfer.analysis.audit.fairness_audit import FairnessAudit as FairnessAudit
from keras_transfer.analysis.calibration.abstention import Abstention as Abstention
from keras_transfer.analysis.calibration.abstention import abstention as abstention
from keras_transfer.analysis.calibration.abstention import (
    SelectiveRisk as SelectiveRisk,
)
from keras_transfer.analysis.calibration.calibration import Calibration as Calibration
from keras_transfer.analysis.calibration.calibration_error import (
    calibration_error as calibration_error,
)
from keras_transfer.analysis.calibration.calibration_error import (
    CalibrationError as CalibrationError,
)
from keras_transfer.analysis.calibration.conformal import conformal as conformal
from keras_transfer.analysis.calibration.conformal import (
    ConformalClassifier as ConformalClassifier,
)
from keras_transfer.analysis.calibration.conformal import Coverage as Coverage
from keras_transfer.analysis.domains.adaptation_table import (
    AdaptationRow as AdaptationRow,
)
from keras_transfer.analysis.domains.adaptation_table import (
    AdaptationTable as AdaptationTable,
)
from keras_transfer.analysis.domains.adaptation_table import gap_closed as gap_closed
from keras_transfer.analysis.domains.agreement import (
    ensemble_agreement as ensemble_agreement,
)
from keras_transfer.analysis.domains.agreement import (
    reverse_accuracy as reverse_accuracy,
)
from keras_transfer.analysis.domains.distances import (
    frechet_distance as frechet_distance,
)
from keras_transfer.analysis.domains.distances import mmd_test as mmd_test
from keras_transfer.analysis.domains.distances import MMDTest as MMDTest
from keras_transfer.analysis.domains.distances import (
    proxy_a_distance as proxy_a_distance,
)
from keras_transfer.analysis.domains.importance_weights import (
    DomainOverlapWarning as DomainOverlapWarning,
)
from keras_transfer.analysis.domains.importance_weights import (
    importance_weights as importance_weights,
)
from keras_transfer.analysis.domains.importance_weights import (
    ImportanceWeights as ImportanceWeights,
)
from keras_transfer.analysis.domains.plot import plot_domains as plot_domains
from keras_transfer.analysis.domains.validators import (
    deep_embedded_validation as deep_embedded_validation,
)
from keras_transfer.analysis.domains.validators import (
    importance_weighted_risk as importance_weighted_risk,
)
from keras_transfer.analysis.domains.validators import (
    information_maximization as information_maximization,
)
from keras_transfer.analysis.domains.validators import (
    soft_neighborhood_density as soft_neighborhood_density,
)
from keras_transfer.analysis.domains.validators import (
    source_accuracy as source_accuracy,
)
from keras_transfer.analysis.domains.validators import target_entropy as target_entropy
from keras_transfer.analysis.energy.energy_use import EnergyUse as EnergyUse
from keras_transfer.analysis.entity_scores import entity_scores as entity_scores
from keras_transfer.analysis.entity_scores import EntityScores as EntityScores
from keras_transfer.analysis.forgetting import Forgetting as Forgetting
from keras_transfer.analysis.model_card.card import ModelCard as ModelCard
from keras_transfer.analysis.model_card.model_card import model_card as model_card
from keras_transfer.analysis.recorded_start import record_start as record_start
from keras_transfer.analysis.report.report import report as report
from keras_transfer.analysis.report.report_object import Report as Report
from keras_transfer.analysis.transferability.h_score import h_score as h_score
from keras_transfer.analysis.transferability.layer_transfer import (
    LayerTransferability as LayerTransferability,
)
from keras_transfer.analysis.transferability.layer_transferability import (
    layer_transferability as layer_transferability,
)
from keras_transfer.analysis.transferability.leep import leep as leep
from keras_transfer.analysis.transferability.log_me import log_me as log_me
from keras_transfer.analysis.transferability.probe_layers import (
    LayerProbes as LayerProbes,
)
from keras_transfer.analysis.transferability.probe_layers import (
    probe_layers as probe_layers,
)
from keras_transfer.analysis.transferability.rank_backbones import (
    rank_backbones as rank_backbones,
)
from keras_transfer.analysis.transferability.ranking import (
    BackboneRanking as BackboneRanking,
)
from keras_transfer.analysis.transferability.ranking import BackboneRow as BackboneRow

__getattr__ = _attributes_instead(
    "module 'keras_transfer.analysis'",
    information_maximisation="information_maximization",
    soft_neighbourhood_density="soft_neighborhood_density",
)
