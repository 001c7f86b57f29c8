"""Transfer learning for Keras 3: what trains, at which rate, with which new weights."""

from keras_transfer import adapters as adapters
from keras_transfer import analysis as analysis
from keras_transfer import backbones as backbones
from keras_transfer import callbacks as callbacks
from keras_transfer import data as data
from keras_transfer import distribute as distribute
from keras_transfer import export as export
from keras_transfer import fine_tuning as fine_tuning
from keras_transfer import layers as layers
from keras_transfer import losses as losses
from keras_transfer import models as models
from keras_transfer import monitoring as monitoring
from keras_transfer import optimizers as optimizers
from keras_transfer import quantization as quantization
from keras_transfer import regularizers as regularizers
from keras_transfer import retuning as retuning
from keras_transfer import saving as saving
from keras_transfer._version import __version__ as __version__
from keras_transfer.analysis.model_card.model_card import model_card as model_card
from keras_transfer.analysis.report.report import report as report
from keras_transfer.analysis.transferability.rank_backbones import (
    rank_backbones as rank_backbones,
)
from keras_transfer.backbones.groups import layer_groups as layer_groups
from keras_transfer.callbacks.learning_rate_finder import (
    find_learning_rate as find_learning_rate,
)
from keras_transfer.export.serving import export_serving as export_serving
from keras_transfer.fine_tuning.adaptation.adapt import adapt as adapt
from keras_transfer.fine_tuning.comparison.compare import compare as compare
from keras_transfer.fine_tuning.comparison.learning_curve import (
    learning_curve as learning_curve,
)
from keras_transfer.fine_tuning.fine_tune import fine_tune as fine_tune
from keras_transfer.fine_tuning.pretraining.continue_pretraining import (
    continue_pretraining as continue_pretraining,
)
from keras_transfer.models.calibrate import calibrate as calibrate
from keras_transfer.monitoring.shift_monitor import ShiftMonitor as ShiftMonitor
from keras_transfer.quantization.quantize import quantize as quantize
from keras_transfer.retuning.result import Retuning as Retuning
from keras_transfer.retuning.retune import retune as retune
from keras_transfer.saving.resume import resume as resume
from keras_transfer.saving.save_load import load_adapter as load_adapter
from keras_transfer.saving.save_load import save_adapter as save_adapter
