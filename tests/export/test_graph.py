import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.export import export_serving
from keras_transfer.export.graph import Folded
from tests import tiny
from tests.adapters import models as am
from tests.export import files
from tests.export import plain_tensorflow


def nested():
    """Return a classifier on a BERT of one block."""
    return am.nested(num_layers=1)


def state(model):
    return [w.numpy().copy() for w in model.weights], am.classes(model)


def check_unchanged(model, before):
    values, classes = before
    for weight, value in zip(model.weights, values, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert am.classes(model) == classes


def serve(folder, x):
    x = x if isinstance(x, dict) else {"inputs": x}
    return plain_tensorflow.serve(folder, [("serving_default", x)])[0]["outputs"]


def names_in(folder):
    reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    saved = reader.get_variable_to_shape_map()
    loaded = tf.saved_model.load(str(folder))
    assert len(loaded.weights) == sum(bool("VARIABLE_VALUE" in name) for name in saved)
    return [each.name for each in loaded.weights]


@pytest.mark.parametrize("make", [am.flat, am.task])
def test_lora_is_merged_and_the_model_does_not_change(tmp_path, make):
    model = make()
    kt.adapters.LoRA(rank=2, targets=["query", "value", "token_embedding"]).attach(
        model
    )
    am.disturb(model)
    before = state(model)
    features = make is not am.flat  # a flat model has no backbone
    folder = export_serving(model, tmp_path, samples=am.tokens(), features=features)
    check_unchanged(model, before)
    right = model(am.tokens(), training=False)
    np.testing.assert_allclose(serve(folder, am.tokens()), right, rtol=0, atol=1e-6)
    assert not [name for name in names_in(folder) if "lora" in name or "gate" in name]
    # The base without the adapter gives other outputs.
    kt.adapters.detach(model)
    base = model(am.tokens(), training=False)
    assert np.abs(base - right).max() > 1e-4


def test_convolutions_with_batch_norm(tmp_path):
    images = am.images(2)
    model = files.shaken(kt.models.TransferClassifier(tiny.hub_resnet(), 3), 0.05)
    kt.adapters.LoRA(rank=2).attach(model)
    am.disturb(model, 0.1)
    before = state(model)
    folder = export_serving(model, tmp_path, samples=images)
    check_unchanged(model, before)
    right = model(images, training=False).numpy()
    scale = np.abs(right).max()
    np.testing.assert_allclose(serve(folder, images) / scale, right / scale, atol=1e-5)
    assert not [name for name in names_in(folder) if "lora" in name]


class Subclassed(keras.Model):
    """A model without a functional graph, with a layer that no config can rebuild."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.head = keras.layers.Dense(3)

    def call(self, inputs):
        return self.head(self.layer(inputs))


def test_a_subclassed_model_without_a_config(tmp_path):
    model, x = Subclassed(keras.layers.Dense(4, "relu")), np.ones((2, 5), "float32")
    model(x)
    kt.adapters.LoRA(rank=2, targets="all-linear").attach(model)
    am.disturb(model)
    before = state(model)
    folder = export_serving(model, tmp_path, samples=x)
    check_unchanged(model, before)
    np.testing.assert_allclose(serve(folder, x), model(x), rtol=0, atol=1e-6)
    assert not [name for name in names_in(folder) if "lora" in name]


@pytest.mark.parametrize(
    "adapter",
    [
        kt.adapters.DoRA(rank=2),
        kt.adapters.VeRA(rank=2),
        kt.adapters.IA3(),
        kt.adapters.BitFit(),
    ],
    ids=lambda adapter: type(adapter).__name__,
)
def test_other_adapters(tmp_path, adapter):
    model = adapter.attach(nested())
    am.disturb(model, 0.1)
    before = state(model)
    folder = export_serving(model, tmp_path, samples=am.tokens())
    check_unchanged(model, before)
    right = model(am.tokens(), training=False)
    np.testing.assert_allclose(serve(folder, am.tokens()), right, rtol=0, atol=1e-6)
    kt.adapters.merge(model) if not isinstance(adapter, kt.adapters.BitFit) else None
    assert len(names_in(folder)) <= len(model.weights)


def test_a_bottleneck_is_served_without_merging(tmp_path):
    model = kt.adapters.Bottleneck(size=4).attach(nested())
    am.disturb(model)
    before = state(model)
    folder = export_serving(model, tmp_path, samples=am.tokens())
    check_unchanged(model, before)
    right = model(am.tokens(), training=False)
    np.testing.assert_allclose(serve(folder, am.tokens()), right, rtol=0, atol=1e-6)


def test_only_the_active_adapter_is_served(tmp_path):
    model = nested()
    kt.adapters.LoRA(rank=2).attach(model, "a")
    kt.adapters.LoRA(rank=2).attach(model, "b")
    am.disturb(model, 0.2, "a")
    am.disturb(model, 0.5, "b")
    kt.adapters.use(model, "a")
    folder = export_serving(model, tmp_path, samples=am.tokens())
    right = model(am.tokens(), training=False)
    np.testing.assert_allclose(serve(folder, am.tokens()), right, rtol=0, atol=1e-6)
    with kt.adapters.disabled(model):
        folder = export_serving(model, tmp_path, 2, samples=am.tokens())
        right = model(am.tokens(), training=False)
    np.testing.assert_allclose(serve(folder, am.tokens()), right, rtol=0, atol=1e-6)
    assert not [name for name in names_in(folder) if "lora" in name]


def test_lora_in_mixed_precision(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = nested()
    kt.adapters.LoRA(rank=2).attach(model)
    am.disturb(model)
    before = state(model)
    folder = export_serving(model, tmp_path, samples=am.tokens())
    check_unchanged(model, before)
    got, right = serve(folder, am.tokens()), model(am.tokens(), training=False)
    right = tf.cast(right, tf.float32).numpy()
    assert np.abs(got - right).max() < 0.05 * np.abs(right).max()


def test_lora_on_two_replicas(tmp_path, strategy):
    x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    with strategy.scope():
        model = tiny.mlp()
        kt.adapters.LoRA(rank=2, targets="dense_[01]").attach(model)
        am.compiled(model)
    am.disturb(model)
    model.fit(x, am.labels(), verbose=0)
    folder = export_serving(model, tmp_path, samples=x)
    np.testing.assert_allclose(serve(folder, x), model(x), rtol=0, atol=1e-6)
    model.fit(x, am.labels(), verbose=0)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_lora_on_a_quantized_kernel_is_not_merged(tmp_path):
    model = nested()
    model.quantize("int4")
    kt.adapters.LoRA(rank=2, targets=["query", "value"]).attach(model)
    am.disturb(model)
    before = state(model)
    folder = export_serving(model, tmp_path, samples=am.tokens())
    check_unchanged(model, before)
    got, right = serve(folder, am.tokens()), model(am.tokens(), training=False).numpy()
    assert np.abs(got - right).max() < 0.05 * np.abs(right).max()
    assert [name for name in names_in(folder) if "lora" in name]


def test_an_error_inside_the_block_restores_the_classes():
    model = nested()
    kt.adapters.LoRA(rank=2).attach(model)
    before, folded = am.classes(model), Folded(model)
    with pytest.raises(RuntimeError, match="stop"), folded.applied():
        assert am.classes(model) != before
        raise RuntimeError("stop")
    assert am.classes(model) == before
