"""Reading a model or its features; nothing here changes them."""

from keras_transfer.analysis.adaptation_table import AdaptationRow as AdaptationRow
from keras_transfer.analysis.adaptation_table import AdaptationTable as AdaptationTable
from keras_transfer.analysis.adaptation_table import gap_closed as gap_closed
from keras_transfer.analysis.document import Report as Report
from keras_transfer.analysis.domain_distance import frechet_distance as frechet_distance
from keras_transfer.analysis.domain_distance import mmd_test as mmd_test
from keras_transfer.analysis.domain_distance import MMDTest as MMDTest
from keras_transfer.analysis.domain_distance import proxy_a_distance as proxy_a_distance
from keras_transfer.analysis.domain_plot import plot_domains as plot_domains
from keras_transfer.analysis.importance_weights import (
    DomainOverlapWarning as DomainOverlapWarning,
)
from keras_transfer.analysis.importance_weights import (
    importance_weights as importance_weights,
)
from keras_transfer.analysis.importance_weights import (
    ImportanceWeights as ImportanceWeights,
)
from keras_transfer.analysis.report import report as report
from keras_transfer.analysis.start import record_start as record_start
from keras_transfer.analysis.validators import (
    deep_embedded_validation as deep_embedded_validation,
)
from keras_transfer.analysis.validators import (
    importance_weighted_risk as importance_weighted_risk,
)
from keras_transfer.analysis.validators import (
    information_maximisation as information_maximisation,
)
from keras_transfer.analysis.validators import (
    soft_neighbourhood_density as soft_neighbourhood_density,
)
from keras_transfer.analysis.validators import source_accuracy as source_accuracy
from keras_transfer.analysis.validators import target_entropy as target_entropy
