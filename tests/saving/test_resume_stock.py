"""Keras's own optimizers keep their slots, with and without adapters."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import adapters
from keras_transfer.saving.optimizer_slots import find_trained
from tests import tiny
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit

IDS = np.random.default_rng(0).integers(1, 64, (4, 8))
X = dict(token_ids=IDS, segment_ids=0 * IDS, padding_mask=0 * IDS + 1)
Y = np.arange(4) % 3


def task():
    import keras_hub

    backbone = tiny.bert(num_layers=1, dropout=0.0)
    return keras_hub.models.BertTextClassifier(backbone, num_classes=3, dropout=0.0)


def lora(model):
    adapters.LoRA(rank=2).attach(model)


def adapted_inside():
    model = task()
    lora(model.backbone)
    return model


def without_embedding():
    model = task()
    model.backbone.token_embedding.trainable = False
    return model


def classifier():
    backbone = tiny.bert(num_layers=1, dropout=0.0)
    model = kt.models.TransferClassifier(backbone, num_classes=3)
    lora(model.backbone)
    return model


MAKERS = [task, adapted_inside, without_embedding, classifier]


def trained(make, optimizer=None):
    model = make()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = optimizer or keras.optimizers.Adam(0.01)
    model.compile(optimizer, loss, metrics=[], run_eagerly=True)
    fit(model, X, Y)
    return model


def flags(model):
    return [variable.trainable for variable in model.weights]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*shuffle=True:UserWarning")
@pytest.mark.parametrize("make", MAKERS)
def test_training_continues_as_if_never_stopped(make, tmp_path):
    model = trained(make)
    model.save(tmp_path / "model.keras")
    again = kt.resume(tmp_path / "model.keras")
    assert type(again.optimizer) is keras.optimizers.Adam
    assert flags(again) == flags(model)
    assert_close(again.optimizer.variables, model.optimizer.variables)
    for each in (model, again):
        fit(each, X, Y)
    assert_close(again.get_weights(), model.get_weights(), 1e-6)


OPTIMIZERS = [
    keras.optimizers.Adam(amsgrad=True),
    keras.optimizers.AdamW(use_ema=True),
    keras.optimizers.Adafactor(),
    keras.optimizers.Muon(),
    keras.optimizers.RMSprop(momentum=0.5, centered=True),
    keras.optimizers.SGD(momentum=0.9),
]


def body():
    """Return a model with layers of three widths."""
    layers = [keras.layers.Dense(width) for width in (5, 4, 3)]
    return keras.Sequential([keras.Input((6,)), *layers])


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda x: x.name)
def test_the_variables_of_slots_are_found_by_their_shapes(optimizer):
    model = body()
    fresh = type(optimizer).from_config(optimizer.get_config())
    wanted = [*model.layers[0].weights, model.layers[2].kernel]
    fresh.build(wanted)
    shapes = [tuple(variable.shape) for variable in fresh.variables]
    new = type(optimizer).from_config(optimizer.get_config())
    found = find_trained(model, new, shapes)
    assert [id(v) for v in found] == [id(v) for v in wanted]


def test_several_choices_return_none():
    model = keras.Sequential([keras.Input((4,)), *map(keras.layers.Dense, (4, 4))])
    adam = keras.optimizers.Adam()
    adam.build(model.layers[0].weights)
    shapes = [tuple(variable.shape) for variable in adam.variables]
    assert find_trained(model, keras.optimizers.Adam(), shapes) is None


def language_model():
    """Return a tiny causal language model with its own sampler."""
    import keras_hub

    sizes = dict(num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=8)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=20, max_sequence_length=8, **sizes
    )
    model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
    lora(model)
    sampler = keras_hub.samplers.TopKSampler(k=7, seed=3)
    model.compile(keras.optimizers.SGD(0.1), sampler=sampler, run_eagerly=True)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("load", [keras.models.load_model, kt.resume])
def test_a_language_model_keeps_its_sampler(load, tmp_path):
    model = language_model()
    inputs = {name: np.ones((2, 8), int) for name in ("token_ids", "padding_mask")}
    fit(model, inputs, np.ones((2, 8), int))
    model.save(tmp_path / "model.keras")
    again = load(tmp_path / "model.keras")
    assert type(again.sampler) is type(model.sampler)
    assert again.sampler.get_config() == model.sampler.get_config()
    assert type(again.optimizer) is keras.optimizers.SGD
    assert_close(again.optimizer.variables, model.optimizer.variables)
