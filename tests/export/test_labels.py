"""Class names as outputs of a signature, for one and several outputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_transfer as kt
from keras_transfer.data.class_names import remember_class_names
from keras_transfer.export import export_serving
from tests import tiny
from tests.export import files

ANIMALS, COLORS = ["cat", "dog", "Füchse"], ["red", "blue"]


def signature(model, folder, x, **kwargs):
    """Export a model and return the outputs of the SavedModel."""
    path = export_serving(model, folder, samples=x, **kwargs)
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    answer = serve(inputs=tf.constant(x))
    return {key: each.numpy() for key, each in answer.items()}


def chosen(scores, names):
    """Return the names of the largest scores along the last axis."""
    return np.array([name.encode() for name in names], object)[scores.argmax(-1)]


def dense(kind):
    """Return a model with three classes for each token or pixel, and its inputs."""
    rng = np.random.default_rng(0)
    if kind == "tagging":
        inputs = keras.Input((None, 4))
        outputs = layers.Dense(3)(layers.LSTM(5, return_sequences=True)(inputs))
        x = rng.normal(size=(4, 6, 4))
    else:
        inputs = keras.Input((8, 8, 3))
        outputs = layers.Conv2D(3, 3, padding="same")(inputs)
        x = rng.normal(size=(4, 8, 8, 3))
    return files.shaken(keras.Model(inputs, outputs)), x.astype("float32")


@pytest.mark.parametrize("kind", ["tagging", "segmentation"])
def test_each_token_or_pixel_has_a_label(tmp_path, kind):
    model, x = dense(kind)
    answer = signature(model, tmp_path, x, labels=ANIMALS)
    right = np.array(model(x))
    assert answer["label"].shape == right.shape[:-1]
    np.testing.assert_array_equal(answer["label"], chosen(right, ANIMALS))
    np.testing.assert_array_equal(answer["label_id"], right.argmax(-1))
    assert len(set(answer["label"].flat)) > 1


def several(form):
    """Return a model with the outputs animal, color and weight (a number)."""
    inputs = keras.Input((6,))
    outputs = [
        layers.Dense(size, name=name)(inputs)
        for name, size in (("animal", 3), ("color", 2), ("weight", 1))
    ]
    if form is dict:
        names = ("animal", "color", "weight")
        outputs = dict(zip(names, outputs, strict=True))
    return files.shaken(keras.Model(inputs, outputs), 2.0)


X = np.random.default_rng(0).normal(size=(20, 6)).astype("float32") * 9


@pytest.mark.parametrize(
    "form, labels, names",
    [
        (dict, {"animal": ANIMALS, "color": COLORS}, ("animal", "color")),
        (list, {"animal": ANIMALS, "color": COLORS}, ("outputs_0", "outputs_1")),
        (list, {"outputs_0": ANIMALS, "color": COLORS}, ("outputs_0", "outputs_1")),
        (list, [ANIMALS, COLORS, None], ("outputs_0", "outputs_1")),
    ],
)
def test_each_of_several_outputs_has_its_own_labels(tmp_path, form, labels, names):
    model = several(form)
    answer = signature(model, tmp_path, X, labels=labels)
    added = {f"{name}_{what}" for name in names for what in ("label", "label_id")}
    assert {key for key in answer if "label" in key} == added
    for name, of in zip(names, (ANIMALS, COLORS), strict=True):
        np.testing.assert_array_equal(answer[f"{name}_label"], chosen(answer[name], of))
        np.testing.assert_array_equal(
            answer[f"{name}_label_id"], answer[name].argmax(-1)
        )
        assert len(set(answer[f"{name}_label"])) > 1


@pytest.mark.parametrize(
    "labels, match",
    [
        ({"anmal": ANIMALS}, r"\['anmal'\].*\['animal', 'color', 'weight'\]"),
        ({"animal": COLORS}, "'animal' has the shape"),
        ({"weight": COLORS}, "two logits"),
        ({"animal": ["cat"] * 3}, r"labels\['animal'\]"),
        (ANIMALS, "3 outputs.*dictionary"),
        ([ANIMALS, None, None], "outputs_0"),
        (3, "list of the class names"),
        (True, "list of the class names"),
    ],
)
def test_labels_that_fit_no_output_are_refused(tmp_path, labels, match):
    with pytest.raises(ValueError, match=match):
        export_serving(several(dict), tmp_path, labels=labels)
    assert not files.everything(tmp_path)


def test_an_existing_output_is_not_overwritten_by_a_label(tmp_path):
    inputs = keras.Input((6,))
    outputs = {"a": layers.Dense(2)(inputs), "a_label": layers.Dense(2)(inputs)}
    model = keras.Model(inputs, outputs)
    with pytest.raises(ValueError, match="a_label"):
        export_serving(model, tmp_path, labels={"a": COLORS})


def test_the_class_names_of_the_data_are_the_default(tmp_path):
    model = files.shaken(tiny.mlp())
    remember_class_names(model, ANIMALS)
    answer = signature(model, tmp_path / "own", X)
    np.testing.assert_array_equal(answer["label"], chosen(answer["outputs"], ANIMALS))
    answer = signature(model, tmp_path / "none", X, labels=False)
    assert set(answer) == {"outputs"}
    answer = signature(model, tmp_path / "other", X, labels=["x", "y", "z"])
    assert set(answer["label"]) <= {b"x", b"y", b"z"}


def test_class_names_that_do_not_fit_are_left_out(tmp_path):
    one = tiny.mlp((4, 1))
    remember_class_names(one, COLORS)
    assert set(signature(one, tmp_path / "one", X)) == {"outputs"}
    model = several(dict)
    remember_class_names(model, COLORS)
    answer = signature(model, tmp_path / "several", X)
    assert set(answer) == {"animal", "color", "weight"}


def test_report_and_export_have_the_class_names_of_fine_tune(tmp_path):
    model = tiny.mlp()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=False)
    texts = np.array(["dog", "cat", "Füchse", "cat"] * 5)
    kt.fine_tune(model, (X, texts), epochs=1, verbose=0)
    found = kt.report(model, data=(X, texts)).to_dict()["evaluation"]
    names = ["Füchse", "cat", "dog"]
    assert [each["name"] for each in found["classes"]] == names
    assert [each["examples"] for each in found["classes"]] == [5, 10, 5]
    answer = signature(model, tmp_path, X)
    np.testing.assert_array_equal(answer["label"], chosen(answer["outputs"], names))
