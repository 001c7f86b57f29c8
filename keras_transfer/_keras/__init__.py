"""Private APIs of Keras: used only in this package, with a test for each use."""

from keras_transfer._keras.backends import check_backend as check_backend
from keras_transfer._keras.backends import check_supported
from keras_transfer._keras.backends import is_foreign as is_foreign
from keras_transfer._keras.backends import on_jax as on_jax
from keras_transfer._keras.branches import either as either
from keras_transfer._keras.exchange import exchanged as exchanged
from keras_transfer._keras.exchange import is_training as is_training
from keras_transfer._keras.exchange import places_of as places_of
from keras_transfer._keras.exchange import value_now as value_now
from keras_transfer._keras.exchange import weight_like as weight_like
from keras_transfer._keras.fit import built_metrics as built_metrics
from keras_transfer._keras.fit import compile_arguments as compile_arguments
from keras_transfer._keras.fit import is_weighted as is_weighted
from keras_transfer._keras.fit import label_loss as label_loss
from keras_transfer._keras.fit import masks_predicted as masks_predicted
from keras_transfer._keras.fit import metric_directions as metric_directions
from keras_transfer._keras.fit import running_callbacks as running_callbacks
from keras_transfer._keras.fit import running_epoch as running_epoch
from keras_transfer._keras.fit import unscaled as unscaled
from keras_transfer._keras.fit import untrained as untrained
from keras_transfer._keras.fit import weight_penalty as weight_penalty
from keras_transfer._keras.flag_functions import flag_key as flag_key
from keras_transfer._keras.flag_functions import FlagFunctions as FlagFunctions
from keras_transfer._keras.flag_functions import outputs_key as outputs_key
from keras_transfer._keras.gradients import gradient as gradient
from keras_transfer._keras.gradients import is_finite_for as is_finite_for
from keras_transfer._keras.graph import beside_outputs as beside_outputs
from keras_transfer._keras.graph import call_arguments as call_arguments
from keras_transfer._keras.graph import functional as functional
from keras_transfer._keras.graph import has_mask as has_mask
from keras_transfer._keras.graph import output_index as output_index
from keras_transfer._keras.graph import results as results
from keras_transfer._keras.graph import sees_mask as sees_mask
from keras_transfer._keras.graph import source as source
from keras_transfer._keras.inference import inference as inference
from keras_transfer._keras.jax_fit import assign_copy as assign_copy
from keras_transfer._keras.jax_fit import has_value as has_value
from keras_transfer._keras.jax_fit import on_other_devices as on_other_devices
from keras_transfer._keras.jax_fit import (
    replicate_short_batches as replicate_short_batches,
)
from keras_transfer._keras.jax_fit import set_layout as set_layout
from keras_transfer._keras.jax_fit import sync as sync
from keras_transfer._keras.layers import add_child as add_child
from keras_transfer._keras.layers import all_variables as all_variables
from keras_transfer._keras.layers import attributes as attributes
from keras_transfer._keras.layers import calls_through as calls_through
from keras_transfer._keras.layers import copy_mask as copy_mask
from keras_transfer._keras.layers import flags as flags
from keras_transfer._keras.layers import flags_kept as flags_kept
from keras_transfer._keras.layers import flat_layers as flat_layers
from keras_transfer._keras.layers import has_graph as has_graph
from keras_transfer._keras.layers import hold as hold
from keras_transfer._keras.layers import inner_scope as inner_scope
from keras_transfer._keras.layers import is_legacy_format as is_legacy_format
from keras_transfer._keras.layers import is_random as is_random
from keras_transfer._keras.layers import learnable as learnable
from keras_transfer._keras.layers import listed as listed
from keras_transfer._keras.layers import no_autocast as no_autocast
from keras_transfer._keras.layers import own_weights as own_weights
from keras_transfer._keras.layers import release as release
from keras_transfer._keras.layers import remove_child as remove_child
from keras_transfer._keras.layers import restore as restore
from keras_transfer._keras.layers import save_as as save_as
from keras_transfer._keras.layers import set_flag as set_flag
from keras_transfer._keras.layers import set_flags as set_flags
from keras_transfer._keras.layers import snapshot as snapshot
from keras_transfer._keras.layers import sublayers as sublayers
from keras_transfer._keras.layers import substituted as substituted
from keras_transfer._keras.layers import unpickled as unpickled
from keras_transfer._keras.layers import value as value
from keras_transfer._keras.lookup import lookup as lookup
from keras_transfer._keras.optimizer import CompiledOptimizer as CompiledOptimizer
from keras_transfer._keras.optimizer import decays as decays
from keras_transfer._keras.optimizer import inner_optimizer as inner_optimizer
from keras_transfer._keras.optimizer import made_in_scope as made_in_scope
from keras_transfer._keras.optimizer import momentum_product as momentum_product
from keras_transfer._keras.optimizer import moving_averages as moving_averages
from keras_transfer._keras.optimizer import replace_optimizer as replace_optimizer
from keras_transfer._keras.optimizer import settings as settings
from keras_transfer._keras.optimizer import slots as slots
from keras_transfer._keras.optimizer import steps_taken as steps_taken
from keras_transfer._keras.optimizer import trained_by as trained_by
from keras_transfer._keras.optimizer import variable_index as variable_index
from keras_transfer._keras.own_variables import give_weight_back as give_weight_back
from keras_transfer._keras.own_variables import remove_weight as remove_weight
from keras_transfer._keras.own_variables import replace_weight as replace_weight
from keras_transfer._keras.own_variables import with_mask as with_mask
from keras_transfer._keras.random import random_state_kept as random_state_kept
from keras_transfer._keras.random import seeds as seeds
from keras_transfer._keras.read_weights import weights_read as weights_read
from keras_transfer._keras.replicas import dense as dense
from keras_transfer._keras.replicas import fix_loss_scale as fix_loss_scale
from keras_transfer._keras.replicas import fix_workers as fix_workers
from keras_transfer._keras.replicas import in_strategy_of as in_strategy_of
from keras_transfer._keras.replicas import mean_over_replicas as mean_over_replicas
from keras_transfer._keras.replicas import replicas_here as replicas_here
from keras_transfer._keras.replicas import replicas_in_step as replicas_in_step
from keras_transfer._keras.replicas import scope as scope
from keras_transfer._keras.replicas import sum_over_replicas as sum_over_replicas
from keras_transfer._keras.split_words import SplitWords as SplitWords
from keras_transfer._keras.squared_gradients import (
    squared_gradients as squared_gradients,
)
from keras_transfer._keras.symbolic import symbolic_pass as symbolic_pass
from keras_transfer._keras.symbolic import was_called as was_called
from keras_transfer._keras.to_tensorflow import call_in_tensorflow as call_in_tensorflow
from keras_transfer._keras.tracing import counted_makers as counted_makers
from keras_transfer._keras.tracing import forget_traces as forget_traces
from keras_transfer._keras.tracing import remake_functions as remake_functions
from keras_transfer._keras.tracing import trace_once as trace_once

check_supported()
