"""layer_transferability: the four networks of the paper, and bad input."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_transfer as kt
from keras_transfer.analysis.transferability.builders import FIRST_SEED

RNG = np.random.default_rng(0)
DIRECTIONS = RNG.normal(size=(12, 4)).astype("float32")
X = RNG.normal(size=(200, 12)).astype("float32")
Y = (X @ DIRECTIONS).argmax(1)  # few labels cannot find these directions
TRAIN, TEST = (X[:40], Y[:40]), (X[40:], Y[40:])


def build(pretrained, upper=True, rate=1e-2, metrics=("accuracy",)):
    low = layers.Dense(4, name="low")
    stack = [keras.Input((12,)), low]
    if upper:
        norm = layers.BatchNormalization(name="norm")
        stack += [norm, layers.ReLU(), layers.Dropout(0.1)]
    model = keras.Sequential([*stack, layers.Dense(4, name="logits")])
    if pretrained:
        low.set_weights([DIRECTIONS, np.zeros(4)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.AdamW(rate), loss, metrics=list(metrics), jit_compile=False
    )
    return model


def measure(function=build, data=TRAIN, test=TEST, **kwargs):
    settings = dict(blocks=["norm"], seeds=1, epochs=2, verbose=0) | kwargs
    return kt.analysis.layer_transferability(function, data, test=test, **settings)


def by_hand(low, new, frozen, seed):
    """Copy the layers `low`, train, and return the model."""
    keras.utils.set_random_seed(new)
    model = build(False)
    for layer, values in low.items():
        model.get_layer(layer).set_weights(values)
        model.get_layer(layer).trainable = not frozen
    model.compile(
        keras.optimizers.AdamW(1e-2),
        model.loss,
        metrics=["accuracy"],
        jit_compile=False,
    )
    keras.utils.set_random_seed(seed)
    model.fit(*TRAIN, epochs=2, verbose=0)
    return model


@pytest.mark.slow
def test_each_network_is_what_a_user_would_train_by_hand():
    content = measure().to_dict()
    (row,), seed = content["rows"], FIRST_SEED
    old, names = build(True), ("low", "norm")
    base = by_hand({}, seed, False, seed)
    copies = {
        kind: {name: model.get_layer(name).get_weights() for name in names}
        for kind, model in (("A", old), ("B", base))
    }
    accuracies = {
        f"{kind}nB{plus}": by_hand(copies[kind], seed + 1, not plus, seed)
        for kind in "AB"
        for plus in ("", "+")
    }
    assert row.pop("block") == "norm" and content["metric"] == "accuracy"
    accuracies = {
        kind: [model.evaluate(*TEST, verbose=0)[1]]
        for kind, model in accuracies.items()
    }
    one = 1 / len(TEST[1])  # an example, for rounding
    assert {kind: pytest.approx(x, abs=one) for kind, x in accuracies.items()} == row
    assert content["base"] == pytest.approx([base.evaluate(*TEST, verbose=0)[1]])


@pytest.mark.slow
def test_it_shows_where_pretraining_helps(tmp_path, capsys):
    def linear(pretrained):
        return build(pretrained, upper=False, rate=3e-2)

    found = measure(linear, blocks=None, seeds=2, epochs=20, verbose=1)
    content = found.to_dict()
    (row,) = content["rows"]
    assert row["block"] == "low" and min(row["AnB"]) > 0.7
    assert max(*row["BnB"], *content["base"]) < 0.7
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * (1 + 4)
    assert "AnB, low, seed 1001: accuracy 0." in lines[-2]
    text = str(found)
    assert "copied up to" in text and "± " in text and "\nnone " in text
    for name in ("found.html", "found.md", "found.json", "found.txt"):
        found.save(tmp_path / name)
    assert json.loads((tmp_path / "found.json").read_text()) == content
    assert "image/svg" in (tmp_path / "found.html").read_text()
    figure = found.plot(tmp_path / "found.png")
    assert (tmp_path / "found.png").is_file() and figure.axes[0].get_legend()


def test_a_run_that_diverges_is_named():
    content = {"metric": "loss", "base": [0.5, 0.7], "rows": []}
    row = {"block": "low", "AnB": [0.1, 0.2], "AnB+": [0.3, None]}
    content["rows"].append(row | {"BnB": [0.1, 0.2], "BnB+": [0.3, 0.3]})
    found = kt.analysis.LayerTransferability(content)
    assert "not finite" in str(found)
    found.plot()


@pytest.mark.slow
def test_a_dataset_and_a_loss_alone():
    data = tf.data.Dataset.from_tensor_slices(TRAIN).batch(20)

    def function(pretrained):
        return build(pretrained, metrics=())

    content = measure(function, data, blocks="low", epochs=1).to_dict()
    assert content["metric"] == "loss" and len(content["rows"]) == 1


def test_bad_input_is_an_error_before_training():
    def widening(pretrained):
        units = 3 if pretrained else 4
        model = keras.Sequential([keras.Input((12,)), layers.Dense(units, name="low")])
        model.add(layers.Dense(4))
        model.compile("adam", "mse", jit_compile=False)
        return model

    def flat(pretrained):
        model = keras.Sequential([keras.Input((12,)), layers.Dense(4)])
        if pretrained:
            model.layers[0].set_weights([DIRECTIONS, np.zeros(4)])
        model.compile("adam", "mse", jit_compile=False)
        return model

    with pytest.raises(ValueError, match="seem"):
        measure(lambda pretrained: build(False))
    with pytest.raises(ValueError, match="different shapes"):
        measure(widening)
    with pytest.raises(ValueError, match="only one layer group"):
        measure(flat)
    for blocks in (["high"], ["logits"], ["low", "low"], []):
        with pytest.raises(ValueError, match="blocks="):
            measure(blocks=blocks)
    with pytest.raises(ValueError, match="seeds"):
        measure(seeds=0)
    with pytest.raises(TypeError, match="not a function"):
        measure(build(True))
