"""A graph with several adapters uses for each example the head of its adapter."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.adapters.switching import own_places
from keras_transfer.export.many_adapters import ManyAdapters
from keras_transfer.export.request import plain_entry
from tests.adapters import models
from tests.adapters.test_own_layer import lora
from tests.adapters.test_own_layer import model_of
from tests.adapters.test_own_layer import normalized
from tests.adapters.test_own_layer import X

WHO = ["cat", "", "dog", "cow"] * 3
LEAST = np.finfo("float32").min


def with_heads(make, folder, widths, **more):
    """Return a model with an adapter for each head width, and the outputs of each."""
    model = make(**more)
    outputs = {"": model(X).numpy()}
    for seed, (name, units) in enumerate(widths.items()):
        other = make(units=units, **more) if units else make(**more)
        lora().attach(other, name)
        models.disturb_head(models.disturb(other), name, seed)
        outputs[name] = other(X, training=False).numpy()
        kt.save_adapter(other, folder / f"{name}.safetensors")
        kt.load_adapter(model, folder / f"{name}.safetensors")
    return model, outputs


def function_of(model, names):
    """Return the traced function of inputs and adapter names."""
    many, plain = ManyAdapters(model, names), plain_entry(model)
    compute = many.forward(model, plain, "outputs")
    return lambda x, who: compute({"inputs": x, "adapter": tf.constant(who)})["outputs"]


@pytest.mark.slow
def test_each_adapters_own_layers_compute_its_examples(tmp_path):
    model, outputs = with_heads(
        normalized, tmp_path, dict.fromkeys(("cat", "dog", "cow"))
    )
    found = function_of(model, ["cat", "dog", "cow"])(tf.constant(X), WHO).numpy()
    for row, name in enumerate(WHO):
        np.testing.assert_allclose(found[row], outputs[name][row], rtol=0, atol=1e-5)
    # Adapters that are not exported have no effect.
    found = function_of(model, ["dog"])(tf.constant(X), ["dog", ""] * 6).numpy()
    np.testing.assert_allclose(found[::2], outputs["dog"][::2], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[1::2], outputs[""][1::2], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_heads_of_different_widths_and_their_labels(tmp_path):
    widths = {"cat": 2, "dog": 4, "cow": 3}
    model, outputs = with_heads(model_of, tmp_path, widths)
    labels = {
        "": ["no", "yes"],
        "cat": ["siamese", "persian"],
        "dog": ["pug", "husky", "boxer", "spitz"],
        "cow": ["angus", "jersey", "galloway"],
    }
    before = [v.numpy() for v in model.weights]
    path = kt.export_serving(
        model, tmp_path / "many", samples=X[:3], adapters=list(widths), labels=labels
    )
    assert all(map(np.array_equal, [v.numpy() for v in model.weights], before))
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    found = serve(inputs=tf.constant(X), adapter=tf.constant(WHO))
    assert found["outputs"].shape == (12, 4)
    for row, name in enumerate(WHO):
        wanted, got = outputs[name][row], found["outputs"][row].numpy()
        np.testing.assert_allclose(got[: len(wanted)], wanted, rtol=0, atol=1e-5)
        assert (got[len(wanted) :] == LEAST).all()
        assert found["label"][row].numpy().decode() == labels[name][wanted.argmax()]
        assert found["label_id"][row] == wanted.argmax()


def test_probabilities_are_filled_up_with_zeros(tmp_path):
    def make(units=2):
        model = model_of(units=units)
        model.layers[-1].activation = keras.activations.softmax
        return model

    model, outputs = with_heads(make, tmp_path, {"cat": 3})
    found = function_of(model, ["cat"])(tf.constant(X), ["cat", ""] * 6).numpy()
    np.testing.assert_allclose(found[::2], outputs["cat"][::2], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[1::2, :2], outputs[""][1::2], rtol=0, atol=1e-6)
    assert (found[1::2, 2] == 0).all()


def test_the_active_adapter_is_exported_with_its_head(tmp_path):
    model, outputs = with_heads(model_of, tmp_path, {"cat": 2, "dog": 3})
    for name in ("dog", "cat"):
        kt.adapters.use(model, name)
        path = kt.export_serving(model, tmp_path / name, samples=X[:3])
        serve = tf.saved_model.load(str(path)).signatures["serving_default"]
        found = serve(inputs=tf.constant(X))["outputs"]
        np.testing.assert_allclose(found, outputs[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "labels, match",
    [
        ({"cat": ["a", "b"]}, "lacks the keys \\['dog'\\]"),
        (
            {"cat": ["a", "b"], "dog": list("abc"), "cow": ["a", "b"]},
            "has .* \\['cow'\\]",
        ),
        ({"cat": ["a", "b"], "dog": ["a", "b"]}, "'dog'.* has 3 outputs"),
        ({"cat": ["a", "a"], "dog": list("abc")}, "each class once"),
    ],
    ids=["missing", "unknown", "short", "twice"],
)
def test_labels_that_do_not_fit_are_refused(labels, match, tmp_path):
    model, _ = with_heads(model_of, tmp_path, {"cat": 2, "dog": 3})
    assert len(list(own_places(model))) == 2
    with pytest.raises(ValueError, match=match):
        kt.export_serving(
            model, tmp_path / "many", adapters=["cat", "dog"], labels=labels
        )
    assert not (tmp_path / "many").exists()
