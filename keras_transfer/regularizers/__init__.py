"""Keep what was learned: penalties on weights that act in each `fit` of a model."""

from keras_transfer.regularizers.ewc import EWC as EWC
from keras_transfer.regularizers.fisher import diagonal_fisher as diagonal_fisher
from keras_transfer.regularizers.l2_sp import L2SP as L2SP
from keras_transfer.regularizers.penalized import detach as detach
