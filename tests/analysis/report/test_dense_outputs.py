"""A report for models with a label for each token or pixel."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sklearn.metrics import accuracy_score
from sklearn.metrics import confusion_matrix

import keras_transfer as kt
from keras_transfer.analysis.report.positions import Rows

SPARSE = keras.losses.SparseCategoricalCrossentropy


def evaluation(model, *data, **kwargs):
    return kt.report(model, data=data, **kwargs).to_dict()["evaluation"]


def identity(shape, loss=None, **kwargs):
    """Return a model that outputs its inputs."""
    inputs = keras.Input(shape)
    outputs = layers.Dense(shape[-1], kernel_initializer="identity", **kwargs)(inputs)
    model = keras.Model(inputs, outputs)
    if loss is not None:
        model.compile("sgd", loss, run_eagerly=True)
    return model


def scores(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize("shape", [(5, 3), (4, 6, 3)])
@pytest.mark.parametrize("form", ["sparse", "column", "one-hot"])
def test_metrics_of_positions_match_scikit_learn(shape, form):
    x = scores(40, *shape)
    true = np.random.default_rng(1).integers(0, 3, (40, *shape[:-1]))
    y = {"sparse": true, "column": true[..., None], "one-hot": np.eye(3)[true]}[form]
    found = evaluation(identity(shape), x, y)
    guess = x.argmax(-1)
    assert (found["kind"], found["examples"]) == ("classes", 40)
    assert found["positions"] == true.size
    assert found["accuracy"] == pytest.approx(accuracy_score(true.flat, guess.flat))
    assert found["confusion_matrix"] == confusion_matrix(true.flat, guess.flat).tolist()
    worst = found["worst"][0]
    logs = x - np.log(np.exp(x).sum(-1, keepdims=True))
    losses = -np.take_along_axis(logs, true[..., None], -1)[..., 0]
    place = np.unravel_index(losses.argmax(), losses.shape)
    assert [worst["index"], *worst["position"]] == [*map(int, place)]
    assert worst["loss"] == pytest.approx(losses.max(), rel=1e-5)
    assert worst["predicted"] == str(guess[place])
    assert len({each["index"] for each in found["worst"]}) == 10


def test_pixels_with_one_output_are_binary():
    x = scores(4, 6, 6, 1)
    y = (scores(4, 6, 6, 1, seed=1) > 0).astype("int32")
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    for labels in (y, y[..., 0]):
        found = evaluation(identity((6, 6, 1), loss), x, labels)
        assert found["accuracy"] == pytest.approx(np.mean((x > 0) == y))


def test_several_labels_for_each_pixel():
    x = scores(4, 6, 6, 3)
    y = (scores(4, 6, 6, 3, seed=1) > 0).astype("int32")
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    found = evaluation(identity((6, 6, 3), loss), x, y)
    assert found["kind"] == "labels"
    assert found["label_accuracy"] == pytest.approx(np.mean((x > 0) == y))
    assert found["accuracy"] == pytest.approx(np.mean(((x > 0) == y).all(-1)))


def test_masked_tokens_do_not_count():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    model = keras.Model(inputs, layers.Dense(3)(x))
    model.compile(
        "sgd", SPARSE(from_logits=True), metrics=["accuracy"], jit_compile=False
    )
    tokens = np.random.default_rng(0).integers(1, 9, (40, 6))
    tokens[np.arange(6) >= np.random.default_rng(1).integers(1, 7, 40)[:, None]] = 0
    labels = np.random.default_rng(2).integers(0, 3, tokens.shape)
    found = evaluation(model, tokens, labels)
    real = tokens != 0
    assert found["positions"] == real.sum() < real.size
    right = model.predict(tokens, verbose=0).argmax(-1) == labels
    assert found["accuracy"] == pytest.approx(right[real].mean())
    # The metric of Keras leaves out masked tokens as well.
    kept = model.evaluate(tokens, labels, verbose=0, return_dict=True)
    assert found["accuracy"] == pytest.approx(kept["accuracy"], abs=1e-6)
    assert all(tokens[each["index"]][each["position"]] for each in found["worst"])
    assert "predict_step" not in vars(model)


@pytest.mark.parametrize("axes", [1, 2])
def test_tokens_with_a_sample_weight_of_zero_do_not_count(axes):
    x, y = scores(40, 5, 3), np.random.default_rng(1).integers(0, 3, (40, 5))
    weights = np.random.default_rng(2).integers(0, 3, (40, 5)[:axes]) / 2
    counted = np.broadcast_to(weights.reshape(40, -1) != 0, (40, 5))
    right = x.argmax(-1) == y
    model = identity((5, 3))
    data = tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(7)
    for given in ((x, y, weights), data):
        found = kt.report(model, data=given).to_dict()["evaluation"]
        assert found["accuracy"] == pytest.approx(right[counted].mean())
        assert found["positions"] == counted.sum()
        assert found["examples"] == counted.any(1).sum()
        assert all(counted[x["index"], x["position"][0]] for x in found["worst"])


def test_examples_and_numbers_with_a_sample_weight_of_zero_do_not_count():
    x, weights = scores(30, 3), np.arange(30) % 3
    found = evaluation(identity((3,)), x, np.zeros(30, int), weights)
    assert found["accuracy"] == np.mean(x[weights != 0].argmax(-1) == 0)
    assert found["examples"] == 20
    numbers = identity((5, 3), "mse")
    x, weights = scores(30, 5, 3), np.arange(150).reshape(30, 5) % 2
    found = evaluation(numbers, x, x + weights[..., None] * 2, weights)
    assert found["mean_absolute_error"] == pytest.approx(2)


def test_the_ignored_class_of_the_loss_does_not_count():
    x, y = scores(40, 5, 3), np.random.default_rng(1).integers(-1, 3, (40, 5))
    loss = SPARSE(from_logits=True, ignore_class=-1)
    found = evaluation(identity((5, 3), loss), x, y)
    assert found["accuracy"] == np.mean(x.argmax(-1)[y >= 0] == y[y >= 0])
    assert found["positions"] == (y >= 0).sum()


def test_data_without_counted_labels_raises():
    x, y = scores(4, 5, 3), np.zeros((4, 5), int)
    with pytest.raises(ValueError, match="No example in `data` counts"):
        evaluation(identity((5, 3)), x, y, np.zeros(4))
    with pytest.raises(ValueError, match=r"sample weights.*\(4, 3\).*\(4, 5\)"):
        evaluation(identity((5, 3)), x, y, np.zeros((4, 3)))


def test_an_output_with_weight_zero_can_be_infinite():
    x, y = scores(4, 5, 3), np.zeros((4, 5), int)
    x[0, 0] = np.nan
    weights = np.ones((4, 5))
    reason = kt.report(identity((5, 3)), data=(x, y, weights)).to_dict()
    assert reason["not_recorded"]["evaluation"].startswith("1 of 20 outputs")
    weights[0, 0] = 0
    assert evaluation(identity((5, 3)), x, y, weights)["positions"] == 19


def test_rows_are_read_in_parts(monkeypatch):
    x, y = scores(9, 7, 3), np.random.default_rng(1).integers(0, 3, (9, 7))
    right = evaluation(identity((7, 3)), x, y)
    # The function `report` hides the package `report`.
    monkeypatch.setattr(sys.modules[Rows.__module__], "MOST", 12)
    assert evaluation(identity((7, 3)), x, y) == right


def test_names_of_tags_can_be_labels():
    tags = ["O", "PER", "LOC"]
    x, y = scores(4, 5, 3), np.random.default_rng(1).integers(0, 3, (4, 5))
    right = evaluation(identity((5, 3)), x, y, class_names=tags)
    assert right["classes"][1]["name"] == "PER"
    assert evaluation(identity((5, 3)), x, np.array(tags)[y], class_names=tags) == right
    with pytest.raises(ValueError, match="PER.*ORG"):
        evaluation(identity((5, 3)), x, np.full((4, 5), "ORG"), class_names=tags)


def test_positions_are_shown_in_all_formats():
    x, y = scores(4, 5, 3), np.random.default_rng(1).integers(0, 3, (4, 5))
    report = kt.report(identity((5, 3)), data=(x, y))
    assert "20 tokens or pixels of these examples" in str(report)
    assert "position" in report.to_markdown() and "position" in report.to_html()
