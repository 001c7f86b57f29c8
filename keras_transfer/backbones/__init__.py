"""Facts about pretrained networks; nothing trains here."""

from keras_transfer.backbones.features import features as features
from keras_transfer.backbones.frozen import FrozenBackbone as FrozenBackbone
from keras_transfer.backbones.groups import layer_groups as layer_groups
from keras_transfer.backbones.groups import LayerGroup as LayerGroup
from keras_transfer.backbones.groups import LayerGroups as LayerGroups
