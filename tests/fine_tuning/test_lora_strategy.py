"""The strategy "lora": attached, trained with the head, and detached after an error."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import _keras
from keras_transfer.adapters.switching import attached
from tests import tiny
from tests.contracts.compare import assert_close
from tests.fine_tuning.model_state import state

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def images(count=24):
    rng, y = np.random.default_rng(0), np.arange(count) % 3
    x = rng.normal(size=(count, 6, 6, 2)) + 0.3 * (y - 1)[:, None, None, None]
    return x.astype("float32"), y


def compiled(model):
    model.compile(keras.optimizers.Adam(0.01), SPARSE, jit_compile=False)
    return model


def make(**settings):
    keras.utils.set_random_seed(3)
    return compiled(tiny.conv_blocks(**settings))


def tune(model, **settings):
    arguments = dict(epochs=3, batch_size=8, verbose=0, strategy="lora") | settings
    return kt.fine_tune(model, images(), **arguments)


def kernels(model):
    """Return the pretrained weights, which LoRA does not change."""
    return [
        _keras.value(layer.kernel)
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]


def test_lora_and_the_head_train_and_stay_attached(capsys):
    model = make()
    before = kernels(model)
    history = tune(model, verbose=2)
    assert history.strategy == "lora" and history.history["phase"] == [0, 0, 0]
    assert history.pilot is None
    assert list(attached(model)) == ["default"]
    assert_close(kernels(model), before, 0)
    moving = [weight.path for weight in model.trainable_variables]
    assert len(moving) == 6 and all("/default/" in path for path in moving)
    assert all(_keras.value(x).any() for x in model.trainable_variables)
    assert set(model.optimizer.rates.values()) == {1.0}
    said = capsys.readouterr().out
    assert "the head starts where it has converged: logistic regression" in said


@pytest.mark.slow
def test_an_adapter_of_the_user_is_used():
    model = make()
    kt.adapters.DoRA(rank=2, targets="block_1").attach(model, verbose=0)
    tune(compiled(model))
    (adapter,) = attached(model).values()
    assert isinstance(adapter, kt.adapters.DoRA) and adapter.rank == 2


@pytest.mark.slow
def test_a_model_without_a_head_trains_lora_from_the_first_epoch():
    model = make()
    history = tune(model, frozen="logits", epochs=1)
    assert history.history["phase"] == [0] and history.strategy == "lora"
    paths = [weight.path for weight in model.trainable_variables]
    assert len(paths) == 4 and all("lora" in path for path in paths)


def test_a_model_that_lora_does_not_fit_raises():
    for model in (compiled(tiny.mlp(widths=(5, 4, 3))), make(filters=4)):
        optimizer, weights = model.optimizer, model.get_weights()
        x = np.zeros((24, *model.input_shape[1:]))
        with pytest.raises(ValueError, match="strategy='lora' does not fit the model"):
            kt.fine_tune(model, (x, np.arange(24) % 3), strategy="lora", verbose=0)
        assert not attached(model) and model.optimizer is optimizer
        assert_close(model.get_weights(), weights, 0)


class Fails(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 2:
            raise RuntimeError("the disk is full")


@pytest.mark.slow
def test_an_error_detaches_it():
    model = make(batch_norm=True)
    loss = model.evaluate(*images(), verbose=0)
    before, values = state(model)
    with pytest.raises(RuntimeError, match="the disk is full"):
        tune(model, callbacks=Fails())
    after, same = state(model)
    assert after == before
    assert_close(same, values, 0)
    assert model.evaluate(*images(), verbose=0) == loss
    assert tune(model, strategy="lp-ft").epoch == [0, 1, 2]


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(epochs=0), "epochs=0 must be a whole number"),
        (dict(class_weight={9: 1.0}), "class_weight"),
        (dict(frozen="blok"), "names no"),
        (dict(budget=2), "budget=2 has no effect with strategy='lora'"),
    ],
)
def test_a_wrong_call_leaves_the_model_as_it_was(settings, message):
    model = make()
    before, values = state(model)
    with pytest.raises(ValueError, match=message):
        tune(model, **settings)
    after, same = state(model)
    assert after == before
    assert_close(same, values, 0)


@pytest.mark.slow
def test_a_transformer_of_keras_hub_is_adapted():
    model = compiled(tiny.bert_classifier(num_layers=1, hidden_dim=32))
    ids = np.random.default_rng(0).integers(1, 64, (24, 8))
    x = dict(token_ids=ids, segment_ids=0 * ids, padding_mask=0 * ids + 1)
    history = kt.fine_tune(
        model, (x, images()[1]), epochs=2, strategy="lora", verbose=0
    )
    assert history.strategy == "lora" and attached(model)
