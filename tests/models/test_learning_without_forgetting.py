"""LearningWithoutForgetting: its loss by hand, its steps, and wrong models."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from tests import tiny
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.model_contract import ModelContract

LwF = kt.models.LearningWithoutForgetting
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
Y = np.arange(8) % 2


def made(old=None, **settings):
    keras.utils.set_random_seed(0)
    return LwF(old or tiny.mlp(), 2, **settings)


def compiled(model, rate=0.1, **settings):
    settings = dict(jit_compile=False) | settings
    model.compile(keras.optimizers.SGD(rate), SPARSE, metrics=["accuracy"], **settings)
    return model


def softmax(x):
    powers = np.exp(x - x.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


class TestLearningWithoutForgetting(ModelContract):
    loss = SPARSE

    def make(self):
        return made(old_weight=0.5)

    def inputs(self):
        return X

    def targets(self):
        return Y

    def training_inputs(self):
        responses = np.random.default_rng(1).normal(size=(8, 3)).astype("float32")
        return {"inputs": X, "old_responses": [responses]}


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_loss_is_that_of_the_paper(activation):
    old = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5), keras.layers.Dense(3, activation)]
    )
    model = compiled(made(old, old_weight=0.7, temperature=2.0), run_eagerly=True)
    x, y = model.record((X, Y))
    hidden, head = old.layers
    recorded = array(hidden(X)) @ array(head.kernel) + array(head.bias)
    hidden.kernel.assign_add(np.ones((6, 5)))
    now = array(hidden(X)) @ array(head.kernel) + array(head.bias)
    old_loss = -np.mean(np.sum(softmax(recorded / 2) * np.log(softmax(now / 2)), 1))
    new_loss = float(SPARSE(Y, model(X)))
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["loss"] == pytest.approx(new_loss + 0.7 * old_loss, rel=1e-4)
    assert logs["old_loss"] == pytest.approx(old_loss, rel=1e-4)


def test_plain_inputs_give_the_new_head_and_the_old_model_shares_its_layers():
    old = tiny.mlp()
    model = compiled(made(old), run_eagerly=True)
    assert model(X).shape == (8, 2)
    assert set(model.evaluate(X, Y, verbose=0, return_dict=True)) == {
        "loss",
        "accuracy",
    }
    before = array(old(X))
    recorded = model.record((X, Y))
    fit(model, *recorded, epochs=2)
    assert np.abs(array(old(X)) - before).max() > 1e-4
    both = model(recorded[0])
    assert_close(both["old"][0], old(X), 1e-6)
    assert_close(both["new"], model(X), 1e-6)
    assert kt.layer_groups(model).names


def test_warm_up_trains_only_the_new_head():
    model = compiled(made())
    before = {v.path: array(v) for v in model.weights}
    losses = model.warm_up((X, Y), epochs=20).history["loss"]
    assert losses[-1] < losses[0]
    moved = {v.path for v in model.weights if (array(v) != before[v.path]).any()}
    assert moved == {v.path for v in model.get_layer("new_1").weights}
    assert int(array(model.optimizer.iterations)) == 0
    model.record((X, Y))  # the responses are still those of the old model


@pytest.mark.slow
def test_a_third_task_keeps_the_responses_of_both_heads(tmp_path):
    second = made()
    third = compiled(LwF(second, 4, old_weight=0.5), run_eagerly=True)
    x, y = third.record((X, Y))
    assert [each.shape for each in x["old_responses"]] == [(8, 3), (8, 2)]
    fit(third, x, y)
    assert_close(third.task_model(0)(X), second.old_model(X), 1e-6)
    assert_close(third.task_model(1)(X), second(X), 1e-6)
    assert_close(third.task_model(2)(X), third(X), 1e-6)
    third.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for task in range(3):
        assert_close(again.task_model(task)(X), third.task_model(task)(X), 1e-6)
    with pytest.raises(ValueError, match="from 0 to 2"):
        third.task_model(3)


@pytest.mark.slow
def test_datasets_and_weights_are_recorded_in_order():
    model = compiled(made())
    weight = np.arange(8, dtype="float32")
    batches = tf.data.Dataset.from_tensor_slices((X, Y, weight)).batch(3)
    x, y, kept = model.record(batches)
    assert_close(x, model.record((X, Y))[0], 1e-6)
    assert y.tolist() == Y.tolist() and kept.tolist() == weight.tolist()


@pytest.mark.slow
def test_a_classifier_of_texts_with_frozen_layers():
    old = kt.models.TransferClassifier(tiny.bert(1), 3, pooling="mean")
    x = {
        "token_ids": np.ones((4, 6), "int32"),
        "padding_mask": np.ones((4, 6), "int32"),
        "segment_ids": np.zeros((4, 6), "int32"),
    }
    old.backbone.get_layer("token_embedding").trainable = False
    model = compiled(made(old), run_eagerly=True)
    fit(model, *model.record((x, Y[:4])))
    assert len(model.trainable_variables) == len(old.trainable_variables) + 2


def test_wrong_models_and_data():
    inputs = keras.Input((6,))
    model = compiled(made())
    trained = compiled(made(), run_eagerly=True)
    trained.fit(*trained.record((X, Y)), verbose=0)
    sigmoid = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(inputs))
    cases = [
        (lambda: LwF("old", 2), "not a Keras model"),
        (lambda: LwF(sigmoid, 2), "does not end in a Dense"),
        (lambda: LwF(tiny.mlp(), 1), "num_classes=1"),
        (lambda: made(temperature=0), "temperature=0"),
        (lambda: made(old_weight=-1), "old_weight=-1"),
        (lambda: model.record((X, Y + 1)), "4 of 8 labels are outside 0 to 1"),
        (lambda: model.record((X[:0], Y[:0])), "empty"),
        (lambda: model.record(X), "is a ndarray"),
        (lambda: made().warm_up((X, Y), 1), "not compiled"),
        (lambda: trained.record((X, Y)), "has trained for 1 steps"),
        (lambda: trained.fit(X, Y, verbose=0), "Pass fit"),
    ]
    for call, message in cases:
        with pytest.raises((TypeError, ValueError), match=message):
            call()
