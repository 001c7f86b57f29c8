"""Tests of fine_tune(strategy="contrastive")."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from tests.contracts.compare import array

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype("float32")
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).astype("int32")


def network(loss=None, classes=2, rate=0.03):
    """Return a compiled classifier on a small backbone."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, "tanh"), keras.layers.Dense(8, "tanh")]
    backbone = keras.Sequential([keras.Input((6,)), *layers], name="backbone")
    model = kt.models.TransferClassifier(backbone, classes, dropout=0.1)
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.AdamW(rate)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    return model


def tune(model, data=(X, Y), **kwargs):
    return kt.fine_tune(
        model, data, **dict(strategy="contrastive", verbose=0, epochs=2) | kwargs
    )


@pytest.fixture(scope="module")
def tuned():
    model = network()
    before = model.get_weights()
    history = tune(model, batch_size=12, epochs=5)
    return model, before, history


def test_the_backbone_trains_on_pairs_and_then_the_head(tuned):
    model, before, history = tuned
    moved = [
        np.abs(a - b).max() for a, b in zip(before, model.get_weights(), strict=True)
    ]
    assert all(each > 0 for each in moved)
    assert history.strategy == "contrastive" and history.epoch == list(range(5))
    assert len(history.pair_losses) == 40
    assert history.pair_losses[-1] < history.pair_losses[0]
    assert not model.backbone.trainable_variables  # the last phase trains the head
    assert model.evaluate(X, Y, verbose=0)[1] > 0.9


def test_vectors_of_one_class_become_similar(tuned):
    def gap(network):
        u = array(network.backbone(X))
        u = u / np.linalg.norm(u, axis=1, keepdims=True)
        cosines, same = u @ u.T, Y[:, None] == Y[None]
        return cosines[same].mean() - cosines[~same].mean()

    assert 1 - gap(tuned[0]) < 0.5 * (1 - gap(network()))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights():
    def values():
        model = network()
        keras.utils.set_random_seed(1)
        tune(model, epochs=1, batch_size=8)
        return model.get_weights()[0]

    np.testing.assert_array_equal(values(), values())


@pytest.mark.slow
def test_other_labels_and_data(capsys):
    names = np.array(["no", "yes"])[Y]
    one_hot = keras.losses.CategoricalCrossentropy(from_logits=True)
    binary = keras.losses.BinaryCrossentropy(from_logits=True)
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    for model, data, kwargs in (
        (network(), (X, names), {"verbose": 2}),
        (network(one_hot), (X, np.eye(2)[Y]), {"validation_data": (X, np.eye(2)[Y])}),
        (network(binary, 1), (X, Y.astype("float32"), np.ones(24)), {}),
        (network(), dataset, {"class_weight": {0: 1.0, 1: 2.0}}),
    ):
        history = tune(model, data, epochs=1, **kwargs)
        assert history.pair_losses[-1] < history.pair_losses[0]
    out = capsys.readouterr().out
    assert "trained on pairs, in 8 passes of 1 steps: the loss fell from" in out


@pytest.mark.slow
def test_an_adapter_trains_instead_of_the_backbone():
    model = network()
    kt.adapters.LoRA(rank=2, targets="all-linear").attach(model, verbose=0)
    kernel = array(model.backbone.layers[0].kernel)
    before = array(model.backbone(X))
    tune(model, epochs=1)
    np.testing.assert_array_equal(array(model.backbone.layers[0].kernel), kernel)
    assert np.abs(array(model.backbone(X)) - before).max() > 0.01


def test_what_it_cannot_do_raises_and_changes_nothing(tmp_path):
    mse = network("mse", 1)
    several = network(keras.losses.BinaryCrossentropy(from_logits=True), 3)
    frozen = network()
    frozen.backbone.trainable = False
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    frozen.compile("adam", loss, jit_compile=False)
    for model, data, kwargs, match in (
        (mse, (X, X[:, 0]), {}, "one class for each example"),
        (several, (X, np.eye(3)[Y]), {}, "one class for each example"),
        (network(), (X, Y), {"directory": tmp_path / "run"}, "directory"),
        (frozen, (X, Y), {}, "kept frozen"),
    ):
        before = model.get_weights()
        with pytest.raises(ValueError, match=match):
            tune(model, data, **kwargs)
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not (tmp_path / "run").exists()


def test_an_error_restores_the_backbone():
    model = network(rate=1e30)
    before = model.get_weights()
    with pytest.raises(ValueError, match="NaN or infinite"):
        tune(model)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.backbone.trainable_variables


@pytest.mark.slow
def test_a_row_of_compare():
    def build(pretrained):
        return network()

    comparison = kt.compare(
        build,
        (X, Y),
        test=(X, Y),
        strategies=("probe", "contrastive"),
        seeds=1,
        epochs=1,
        verbose=0,
    )
    assert "contrastive" in str(comparison)
