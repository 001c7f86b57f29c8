"""Signatures of the tasks of a MultiTask, and an adapter for each task."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from tests import tiny
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compute import exports

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
IDS = np.arange(48).reshape(8, 6).astype("int32") % 60
X = {"token_ids": IDS, "segment_ids": 0 * IDS, "padding_mask": 0 * IDS + 1}
LABELS = {"topic": np.arange(8) % 3, "mood": np.arange(8) % 2}
CLASSES = {"topic": ["a", "b", "c"], "mood": ["bad", "good"]}


def make(names=("topic", "mood")):
    keras.utils.set_random_seed(0)
    backbone = tiny.bert(num_layers=1, dropout=0.0)
    units = {name: len(CLASSES.get(name, "ab")) for name in names}
    heads = {name: keras.layers.Dense(count) for name, count in units.items()}
    return kt.models.MultiTask(backbone, heads)


@functools.cache
def adapted():
    """Return a model with a trained adapter for each task, and their outputs."""
    model = make()
    for name, head in model.heads.items():
        kt.adapters.LoRA(rank=2).attach(model, name, train=[head], verbose=0)
    outputs = {}
    for name, labels in LABELS.items():
        kt.adapters.use(model, name)
        losses = dict.fromkeys(model.heads, LOSS)
        model.compile(keras.optimizers.Adam(0.05), losses, run_eagerly=True)
        fixed = [array(each) for each in model.non_trainable_weights]
        history = model.fit(X, {name: labels}, epochs=4, verbose=0).history
        assert history["loss"][-1] < history["loss"][0]
        assert history["loss"] == history[f"{name}_loss"]
        assert_close(model.non_trainable_weights, fixed)  # also the other adapter
        outputs[name] = array(model(X, training=False)[name])
    for name in LABELS:  # the training of one changes no other
        kt.adapters.use(model, name)
        assert_close(model(X, training=False)[name], outputs[name])
    return model, outputs


def served(path, name, **more):
    serve = tf.saved_model.load(str(path)).signatures[name]
    found = serve(**{k: tf.constant(v) for k, v in (X | more).items()})
    return {key: each.numpy() for key, each in found.items()}


@exports
def test_a_signature_for_each_head(tmp_path):
    model = make()
    path = kt.export_serving(model, tmp_path, samples=X, labels=CLASSES)
    expected = {k: array(v) for k, v in model(X, training=False).items()}
    both = served(path, "serving_default")
    for name, outputs in expected.items():
        found = served(path, name)
        assert set(found) == {name, f"{name}_label", f"{name}_label_id"}
        np.testing.assert_allclose(found[name], outputs, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(both[name], found[name])
        names = np.array(CLASSES[name])[outputs.argmax(1)]
        assert found[f"{name}_label"].astype(str).tolist() == names.tolist()


@exports
@pytest.mark.slow
def test_a_head_with_its_adapter_on_request(tmp_path):
    model, expected = adapted()
    path = kt.export_serving(
        model, tmp_path, samples=X, adapters=list(LABELS), labels=CLASSES
    )
    for name, outputs in expected.items():
        found = served(path, name)
        assert name in found and not set(LABELS) - {name} & set(found)
        np.testing.assert_allclose(found[name], outputs, rtol=0, atol=1e-5)
    # A batch of rows of both tasks.
    names = np.array(["topic"] * 4 + ["mood"] * 4)
    found = served(path, "serving_default", adapter=names)
    for name, rows in (("topic", slice(4)), ("mood", slice(4, 8))):
        np.testing.assert_allclose(
            found[name][rows], expected[name][rows], rtol=0, atol=1e-5
        )


@pytest.mark.slow
def test_adapters_of_tasks_reload(tmp_path):
    model, expected = adapted()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for name in LABELS:
        kt.adapters.use(again, name)
        assert_close(again(X, training=False)[name], expected[name])


@pytest.mark.slow
def test_refuses_labels_of_another_task_than_the_adapter():
    model, _ = adapted()
    kt.adapters.use(model, "topic")
    for labels in (LABELS, {"mood": LABELS["mood"]}):
        with pytest.raises(ValueError, match=r"of which \['topic'\] is in use"):
            model.fit(X, labels, verbose=0)


@exports
@pytest.mark.slow
def test_refuses_to_merge_the_adapter_of_one_task(tmp_path):
    model, _ = adapted()
    for adapters in ((), ["mood"]):
        with pytest.raises(ValueError, match="'topic'.* have adapters of"):
            kt.export_serving(model, tmp_path / "served", adapters=adapters)
    assert not list((tmp_path / "served").glob("*"))


@exports
def test_refuses_the_name_of_another_signature(tmp_path):
    with pytest.raises(ValueError, match=r"tasks \['features'\] have the names"):
        kt.export_serving(make(["features"]), tmp_path)
