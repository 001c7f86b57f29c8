"""Pretrained networks: layer groups, features, feature caches and freezing."""

from keras_transfer.backbones.audio_encoder import audio_encoder as audio_encoder
from keras_transfer.backbones.feature_cache import cache_features as cache_features
from keras_transfer.backbones.features import features as features
from keras_transfer.backbones.frozen import FrozenBackbone as FrozenBackbone
from keras_transfer.backbones.groups import layer_groups as layer_groups
from keras_transfer.backbones.groups import LayerGroup as LayerGroup
from keras_transfer.backbones.groups import LayerGroups as LayerGroups
from keras_transfer.backbones.hidden_states import hidden_states as hidden_states
from keras_transfer.backbones.match_huggingface import (
    match_huggingface as match_huggingface,
)
from keras_transfer.backbones.stitch import stitch as stitch
from keras_transfer.backbones.word_coverage import WordCoverage as WordCoverage
from keras_transfer.backbones.word_table import WordVectors as WordVectors
from keras_transfer.backbones.word_vectors import word_vectors as word_vectors
