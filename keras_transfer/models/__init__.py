"""Models for transfer: classifiers, language models, methods of domain adaptation."""

from keras_transfer.models.ada_bn import AdaBN as AdaBN
from keras_transfer.models.ada_bn import adapt_batch_norm as adapt_batch_norm
from keras_transfer.models.afn import AFN as AFN
from keras_transfer.models.anil import ANIL as ANIL
from keras_transfer.models.audio_classifier import AudioClassifier as AudioClassifier
from keras_transfer.models.calibrate import calibrate as calibrate
from keras_transfer.models.calibrated_classifier import (
    CalibratedClassifier as CalibratedClassifier,
)
from keras_transfer.models.cdan import CDAN as CDAN
from keras_transfer.models.dan import DAN as DAN
from keras_transfer.models.dann import DANN as DANN
from keras_transfer.models.deep_coral import DeepCORAL as DeepCORAL
from keras_transfer.models.importance_weighting import (
    ImportanceWeighting as ImportanceWeighting,
)
from keras_transfer.models.interpolate import interpolate as interpolate
from keras_transfer.models.interpolation_curve import (
    interpolation_curve as interpolation_curve,
)
from keras_transfer.models.interpolation_curve import (
    InterpolationCurve as InterpolationCurve,
)
from keras_transfer.models.jan import JAN as JAN
from keras_transfer.models.language_model_classifier import (
    LanguageModelClassifier as LanguageModelClassifier,
)
from keras_transfer.models.learning_without_forgetting import (
    LearningWithoutForgetting as LearningWithoutForgetting,
)
from keras_transfer.models.maml import MAML as MAML
from keras_transfer.models.mcc import MCC as MCC
from keras_transfer.models.mcd import MCD as MCD
from keras_transfer.models.mdd import MDD as MDD
from keras_transfer.models.multi_task import MultiTask as MultiTask
from keras_transfer.models.prompt_classifier import PromptClassifier as PromptClassifier
from keras_transfer.models.prototypical_network import (
    PrototypicalNetwork as PrototypicalNetwork,
)
from keras_transfer.models.recurrent_classifier import (
    RecurrentClassifier as RecurrentClassifier,
)
from keras_transfer.models.recurrent_language_model import (
    RecurrentLanguageModel as RecurrentLanguageModel,
)
from keras_transfer.models.soups import adapter_soup as adapter_soup
from keras_transfer.models.soups import greedy_soup as greedy_soup
from keras_transfer.models.soups import Soup as Soup
from keras_transfer.models.soups import uniform_soup as uniform_soup
from keras_transfer.models.source_only import SourceOnly as SourceOnly
from keras_transfer.models.state_distiller import StateDistiller as StateDistiller
from keras_transfer.models.student import student as student
from keras_transfer.models.token_classifier import TokenClassifier as TokenClassifier
from keras_transfer.models.transfer_classifier import (
    TransferClassifier as TransferClassifier,
)
from keras_transfer.models.vada import VADA as VADA
from keras_transfer.models.zero_shot_classifier import (
    ZeroShotClassifier as ZeroShotClassifier,
)
