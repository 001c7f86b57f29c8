"""A report on a model with several outputs: labels, losses and names of each."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_transfer as kt
from keras_transfer.data.class_names import remember_class_names

ANIMALS, COLORS = ["ape", "bee", "cat"], ["red", "blue"]
X = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
RNG = np.random.default_rng(1)
Y = {
    "weight": RNG.normal(size=40).astype("float32"),
    "animal": RNG.integers(0, 3, 40),
    "color": RNG.integers(0, 2, 40),
}
LOSSES = {
    "weight": "mse",
    "animal": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "color": "sparse_categorical_crossentropy",
}


def model(form=dict, losses=LOSSES):
    inputs = keras.Input((6,))
    sizes = {"weight": (1, None), "animal": (3, None), "color": (2, "softmax")}
    outputs = {
        name: layers.Dense(size, activation, name=name)(inputs)
        for name, (size, activation) in sizes.items()
    }
    made = keras.Model(inputs, outputs if form is dict else [*outputs.values()])
    if losses:
        made.compile("sgd", losses, jit_compile=False)
    return made


def evaluation(of, data, **kwargs):
    return kt.report(of, data=data, **kwargs).to_dict()["evaluation"]


def single(of, name):
    """Return the evaluation of a separate model with one of the outputs."""
    output = (
        of.output[name] if isinstance(of.output, dict) else of.get_layer(name).output
    )
    one = keras.Model(of.inputs, output)
    one.compile("sgd", LOSSES[name], jit_compile=False)
    return evaluation(one, (X, Y[name]))


@pytest.mark.parametrize("form", [dict, list])
@pytest.mark.parametrize("labels", [dict, list])
@pytest.mark.parametrize("losses", [dict, list])
def test_each_output_is_reported_like_a_separate_model(form, labels, losses):
    # Keras matches a list to the sorted keys of a dictionary.
    names = sorted(Y) if form is dict else [*Y]
    y, given = ({name: of[name] for name in names} for of in (Y, LOSSES))
    y = y if labels is dict else [*y.values()]
    of = model(form, given if losses is dict else [*given.values()])
    found = evaluation(of, (X, y))
    assert found["kind"] == "several"
    assert [*found["by_output"]] == names
    for name, each in found["by_output"].items():
        right = single(of, name)
        assert each["kind"] == right["kind"] and each["outputs"] == right["outputs"]
        assert set(each) == set(right)
        for key in {"accuracy", "mean_absolute_error"} & set(each):
            assert each[key] == pytest.approx(right[key], rel=1e-5)
        assert each.get("confusion_matrix") == right.get("confusion_matrix")
        worst = [x["index"] for x in each["worst"]]
        assert worst == [x["index"] for x in right["worst"]]
        assert each["worst"][0]["example"] == right["worst"][0]["example"]


def test_datasets_weights_and_outputs_without_labels():
    of = model()
    some = {key: Y[key] for key in ("animal", "weight")}
    weights = {"animal": np.arange(40) % 2, "weight": np.ones(40)}
    data = tf.data.Dataset.from_tensor_slices((X, some, weights)).batch(7)
    for given in ((X, some, weights), data):
        found = evaluation(of, given)["by_output"]
        assert [*found] == ["animal", "weight"]
        assert [each["examples"] for each in found.values()] == [20, 40]
    one_for_all = evaluation(of, (X, some, np.arange(40) % 2))["by_output"]
    assert [each["examples"] for each in one_for_all.values()] == [20, 20]
    found = evaluation(model(list), (X, [None, None, Y["color"]]))["by_output"]
    assert [*found] == ["color"]


def test_each_output_has_its_own_class_names():
    names = {"animal": ANIMALS, "color": COLORS}
    for form, given in ((dict, names), (list, [None, ANIMALS, COLORS])):
        found = evaluation(model(form), (X, Y), class_names=given)["by_output"]
        for key, right in names.items():
            assert [each["name"] for each in found[key]["classes"]] == right
    texts = Y | {"animal": np.array(ANIMALS)[Y["animal"]]}
    named = evaluation(model(), (X, texts), class_names=names)["by_output"]["animal"]
    assert {each["true"] for each in named["worst"]} <= set(ANIMALS)


@pytest.mark.parametrize(
    "names, match",
    [
        (ANIMALS, "dictionary of names by output"),
        ({"anmal": ANIMALS}, r"\['anmal'\].*'animal', 'color', 'weight'"),
        ({"color": ANIMALS}, "has 2 classes"),
        ({"color": ["red", "red"]}, "each class once"),
        ({"weight": COLORS}, "read as numbers"),
        ([ANIMALS], "list of 1"),
        ("abc", "Pass the names"),
        (3, "Pass the names"),
    ],
)
def test_names_that_fit_no_output_raise(names, match):
    with pytest.raises(ValueError, match=match):
        evaluation(model(), (X, Y), class_names=names)


@pytest.mark.parametrize(
    "labels, match",
    [
        (Y["animal"], "several outputs"),
        ({"anmal": Y["animal"]}, r"\['anmal'\]"),
        ([Y["animal"], Y["color"]], "list of 2"),
    ],
)
def test_labels_that_fit_no_output_raise(labels, match):
    with pytest.raises(ValueError, match=match):
        evaluation(model(), (X, labels))


def test_one_output_in_a_dictionary():
    inputs = keras.Input((6,))
    of = keras.Model(inputs, {"animal": layers.Dense(3)(inputs)})
    right = evaluation(of, (X, Y["animal"]))
    assert right["kind"] == "classes"
    assert evaluation(of, (X, {"animal": Y["animal"]})) == right


def test_class_names_of_a_model_with_one_output():
    inputs = keras.Input((6,))
    of = keras.Model(inputs, layers.Dense(3)(inputs))
    data = (X, Y["animal"])

    def names(**kwargs):
        return [each["name"] for each in evaluation(of, data, **kwargs)["classes"]]

    assert names() == ["0", "1", "2"]
    assert names(class_names=ANIMALS) == ANIMALS
    remember_class_names(of, ["x", "y", "z"])
    assert names() == ["x", "y", "z"]
    assert names(class_names=np.array(ANIMALS)) == ANIMALS
    with pytest.raises(ValueError, match="has 3 classes"):
        names(class_names=COLORS)
    right = evaluation(of, data, class_names=ANIMALS)
    texts = np.array(ANIMALS)[Y["animal"]]
    assert evaluation(of, (X, texts), class_names=ANIMALS) == right


def test_other_outputs_are_reported_if_one_is_not_finite():
    of = model()
    of.get_layer("weight").bias.assign([np.nan])
    report = kt.report(of, data=(X, Y))
    found = report.to_dict()
    assert found["evaluation"]["by_output"]["weight"] is None
    assert found["evaluation"]["by_output"]["animal"]["examples"] == 40
    assert found["not_recorded"]["evaluation.weight"].startswith("40 of 40 outputs")
    assert "output weight" in str(report) and "output weight" in report.to_html()
    assert report.to_json()


def test_sections_are_shown_for_each_output():
    report = kt.report(model(), data=(X, Y), class_names={"animal": ANIMALS})
    for text in (str(report), report.to_markdown(), report.to_html()):
        for name in Y:
            assert f"Evaluation: output {name}" in text
            assert f"Worst predictions: output {name}" in text
    assert report.to_html().count("Confusion matrix: output") == 2
    assert report.to_html().count('alt="Confusion matrix"') == 2
    again = kt.analysis.Report(report.to_dict())
    assert again.to_markdown() == report.to_markdown()


def test_images_are_shown_with_their_output():
    inputs = keras.Input((8, 8, 3))
    flat = layers.Flatten()(inputs)
    of = keras.Model(inputs, [layers.Dense(2, name=name)(flat) for name in "ab"])
    x = np.random.default_rng(0).uniform(size=(6, 8, 8, 3)).astype("float32")
    for layer in of.layers[-2:]:
        layer.kernel.assign(layer.kernel * 0)
        layer.bias.assign([1.0, 0.0])
    y = {"a": np.array([1, 0, 0, 0, 0, 0]), "b": np.array([0, 0, 0, 0, 0, 1])}
    page = kt.report(of, data=(x, y)).to_html()
    pictures = [each for each in page.split('src="data:image/png;base64,')[1:]]
    assert len(pictures) == 2
    first, last = (each.split('"')[0] for each in pictures)
    from keras_transfer.analysis.report.shown_examples import picture

    assert (first, last) == (picture(x[0]), picture(x[5]))
