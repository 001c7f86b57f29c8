"""LayerState: record the state of a layer, and restore it."""

import gc
import weakref

import keras
import pytest

from keras_transfer import adapters
from keras_transfer.adapters.in_place.layer_state import all_or_nothing
from keras_transfer.adapters.in_place.layer_state import first_state
from keras_transfer.adapters.in_place.layer_state import LayerState
from tests.saving.files import small
from tests.saving.files import state


def dense(trainable=True):
    layer = keras.layers.Dense(3, name="dense")
    layer.build((None, 4))
    layer.trainable = trainable
    return layer


@pytest.mark.parametrize("trainable", [True, False])
def test_the_state_restores_a_layer(trainable):
    layer = dense(trainable)
    before, was = state(layer), LayerState.of(layer)
    adapters.LoRA(rank=2, targets=[layer]).attach(layer)
    assert type(layer) is not keras.layers.Dense
    assert first_state(layer).kind is keras.layers.Dense
    was.give_back()
    assert state(layer) == before
    assert first_state(layer) is None


def test_the_state_restores_an_adapter_with_its_gate():
    layer = dense()
    adapters.LoRA(rank=2, targets=[layer]).attach(layer)
    before, was = state(layer), LayerState.of(layer)
    adapters.detach(layer)
    assert type(layer) is keras.layers.Dense
    was.give_back()
    assert state(layer) == before
    assert adapters.active(layer) == {"default": 1.0}


def test_an_error_in_the_block_restores_layers_and_values():
    model = small()
    kernel = model.get_layer("logits").kernel
    before = state(model)
    with pytest.raises(KeyboardInterrupt), all_or_nothing(model, [kernel]):
        kernel.assign(kernel * 2)
        adapters.LoRA(rank=2, targets="wide").attach(model)
        raise KeyboardInterrupt
    assert state(model) == before


def test_states_keep_no_layer_alive():
    layer = dense()
    adapters.LoRA(rank=2, targets=[layer]).attach(layer)
    alive = weakref.ref(layer)
    del layer
    gc.collect()
    assert alive() is None
