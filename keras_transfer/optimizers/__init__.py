"""Optimizers with one learning rate for each layer group, and schedules."""

from keras_transfer.optimizers.discriminative import discriminative as discriminative
from keras_transfer.optimizers.ganin_schedules import GaninDecay as GaninDecay
from keras_transfer.optimizers.ganin_schedules import GaninRampUp as GaninRampUp
from keras_transfer.optimizers.lora_plus import lora_plus as lora_plus
from keras_transfer.optimizers.schedules import LinearWarmupDecay as LinearWarmupDecay
from keras_transfer.optimizers.schedules import SlantedTriangular as SlantedTriangular
