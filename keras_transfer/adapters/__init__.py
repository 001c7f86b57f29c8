"""Parameter-efficient fine-tuning: small weights attached to a frozen model."""

from keras_transfer.adapters.bitfit import BitFit as BitFit
from keras_transfer.adapters.bottleneck import Bottleneck as Bottleneck
from keras_transfer.adapters.bottleneck import PfeifferBottleneck as PfeifferBottleneck
from keras_transfer.adapters.dora import DoRA as DoRA
from keras_transfer.adapters.ia3 import IA3 as IA3
from keras_transfer.adapters.loha import LoHa as LoHa
from keras_transfer.adapters.lora import LoRA as LoRA
from keras_transfer.adapters.lora import RsLoRA as RsLoRA
from keras_transfer.adapters.lora_layers import LoRAConv2D as LoRAConv2D
from keras_transfer.adapters.lora_layers import LoRADense as LoRADense
from keras_transfer.adapters.lora_layers import LoRAEinsumDense as LoRAEinsumDense
from keras_transfer.adapters.lora_layers import LoRAEmbedding as LoRAEmbedding
from keras_transfer.adapters.merge import detach as detach
from keras_transfer.adapters.merge import merge as merge
from keras_transfer.adapters.merge import unmerge as unmerge
from keras_transfer.adapters.norm_tuning import NormTuning as NormTuning
from keras_transfer.adapters.switching import active as active
from keras_transfer.adapters.switching import attached as attached
from keras_transfer.adapters.switching import disabled as disabled
from keras_transfer.adapters.switching import refresh as refresh
from keras_transfer.adapters.switching import remove as remove
from keras_transfer.adapters.switching import use as use
from keras_transfer.adapters.vera import VeRA as VeRA
from keras_transfer.adapters.weighted import add_weighted as add_weighted
